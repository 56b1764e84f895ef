"""The journal between nodes: rows for standbys, rows from the primary, rows that come home."""

from broker.core.adoption import Orphan, adopt_page
from broker.core.paging import pack_orphans, unpack_orphans, unpack_page
from broker.core.phases import Promote
from broker.errors import ForkedError, MalformedMessageError, NotPrimaryError
from broker.ledger.lines import mark_of, rows_of
from broker.ledger.rows import JournalRow
from broker.pki.transfer import TransferKey, new_transfer_key
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.admission import follow_roster_role
from broker.shell.batch import Batch
from broker.shell.books import Poll
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.gossip import verified_head
from broker.shell.handover import finish_leaving
from broker.shell.orphans import mark_home, own_orphans, rollover_reviews
from broker.shell.peers import authorize_key_holder
from broker.shell.replication import keep_poll, note_follower, page_after
from broker.shell.state import BrokerState
from broker.shell.succession import promote
from broker.wire.control import Ack
from broker.wire.events import BundleMoved, RosterMoved
from broker.wire.facts import FactAdopted, MergeConflict
from broker.wire.node import Endpoint
from broker.wire.replica import (
    AdoptAnswer,
    AdoptRows,
    InstallPage,
    JournalAnswer,
    JournalPage,
    Mark,
    NoteAdopted,
    PageInstalled,
    PlanSync,
    ReadJournal,
    SyncPlan,
)

BRING_AGAIN_MS = 5_000
"""A primary that took orphans over and died before its rows came back gets them again then."""


def read_journal(
    state: BrokerState, batch: Batch, caller: Caller, request: ReadJournal
) -> JournalAnswer | Deferred:
    """Return the rows a standby lacks; with nothing to send, wait for the next commit."""
    holder = authorize_key_holder(state, batch, caller, request.peer)
    _require_primary(state)
    mark = note_follower(state, holder.host, request.locator, caller.now_ms)
    finish_leaving(state, batch, caller.now_ms)
    patience_ms = min(request.wait_ms, state.settings.failover.grace.ms // 3)
    if mark.sequence < state.ledger.head.sequence or not patience_ms or not state.serves:
        return page_after(state, mark, caller.now)
    until_ms = caller.now_ms + patience_ms
    keep_poll(state, caller.request_id, Poll(holder.host, request.locator, until_ms))
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    return DEFERRED


def plan_sync(state: BrokerState, batch: Batch, caller: Caller, _request: PlanSync) -> SyncPlan:
    """Return what this node has to fetch or to bring now."""
    follow_roster_role(state, batch, caller.now_ms)
    if state.restored is not None and state.restored.held:
        return SyncPlan("collect", reason=state.restored.held)
    if state.membership is None or state.role == "primary":
        return SyncPlan(
            "none", reason="no mesh" if state.membership is None else "this is the primary"
        )
    source = state.leader()
    if source is None and state.role == "member" and state.follow.bundle is None:
        # It slept since it joined: whom it joined at is the one node that it knows of.
        source = state.membership.primary
    if source is None:
        return SyncPlan("none", reason="no primary is known")
    if state.role == "standby":
        waits = caller.now_ms < state.replication.bring_again_ms
        if state.ledger.orphan_count() and not waits:
            return SyncPlan("return", source, orphans=pack_orphans(own_orphans(state)))
        return SyncPlan("follow", source, locator=state.ledger.locator())
    return _of_member(state, source)


def _of_member(state: BrokerState, source: Endpoint) -> SyncPlan:
    """Return the errand of a node that is no standby (yet)."""
    if state.follow.key_taken:
        # Whoever has the key and said so finds itself in the next bundle; else it asks again.
        state.follow.key_taken = False
        return SyncPlan("bundle", source)
    if state.follow.nominated:
        return SyncPlan("accept", source, public_key=transfer_key(state).public)
    return SyncPlan("bundle", source)


def install_page(
    state: BrokerState, batch: Batch, caller: Caller, request: InstallPage
) -> PageInstalled:
    """Append the primary's rows to this journal; what it does not have of ours is set aside.

    Raises:
        ClaimRejectedError: The page's head is not signed by this mesh's CA.
        MalformedMessageError: The rows are not what the head signs for.
        ForkedError: Two contents in one term, or the page is not from whom this node follows.
    """
    leader = state.leader()
    if state.role != "standby" or leader is None or request.source != leader.host:
        raise NotPrimaryError(f"{request.source} is not whom this node follows")
    page = unpack_page(request.page)
    rows = rows_of(page.after, page.lines)
    _check_head(state, page, rows)
    if request.asked_after != state.ledger.head.hash:
        # Fetched for another end of this journal: a late copy must not pass for a deep fork.
        return PageInstalled(state.ledger.head.sequence, page.behind, 0)
    shared = state.ledger.shared(rows)
    common = mark_of(rows[shared - 1]) if shared else page.after
    orphaned = 0
    if common.sequence < state.ledger.head.sequence:
        orphaned = _fork(state, batch, common)
    fresh = rows[shared:]
    if fresh:
        batch.install(fresh)
        batch.publish(RosterMoved(state.ledger.head.term, state.ledger.head.sequence))
        batch.publish(BundleMoved(state.ledger.bundle_sequence()))
    state.replication.behind = page.behind
    if not page.behind:
        mark_home(state, batch)
    follow_roster_role(state, batch, caller.now_ms)
    return PageInstalled(state.ledger.head.sequence, page.behind, len(fresh), orphaned)


def adopt_rows(state: BrokerState, batch: Batch, caller: Caller, request: AdoptRows) -> AdoptAnswer:
    """Take over what a former primary wrote after the fork, by the merge rules."""
    holder = authorize_key_holder(state, batch, caller, request.peer)
    state.mesh()
    orphans = [Orphan.of(line) for line in unpack_orphans(request.page).lines]
    _outrank(state, batch, caller, orphans)
    facts = (*adopt_page(orphans, state.ledger), *rollover_reviews(state, orphans))
    for fact in facts:
        batch.append(fact, holder.host)
    adopted = sum(1 for fact in facts if isinstance(fact, FactAdopted))
    conflicts = sum(1 for fact in facts if isinstance(fact, MergeConflict))
    if adopted:
        log(EventName.MERGE_ADOPTED, source=holder.host, rows=adopted, conflicts=conflicts)
        batch.publish(BundleMoved(state.ledger.bundle_sequence()))
    return AdoptAnswer(adopted, len(orphans) - adopted, conflicts)


def _outrank(state: BrokerState, batch: Batch, caller: Caller, orphans: list[Orphan]) -> None:
    """Take a term above that of every orphan: what is written next must not lose against it."""
    election = state.election
    assert election is not None
    newest = max((orphan.origin.term for orphan in orphans), default=0)
    if newest >= state.ledger.term:
        cause = f"rows of term {newest} came home"
        term = max(newest, election.highest_term) + 1
        promote(state, batch, Promote(term, cause, ""), caller.now_ms)


def note_adopted(state: BrokerState, _batch: Batch, caller: Caller, request: NoteAdopted) -> Ack:
    """Remember what the primary took over; it is home when its rows are in this journal."""
    state.replication.brought = unpack_orphans(request.page).lines
    state.replication.bring_again_ms = caller.now_ms + BRING_AGAIN_MS
    return Ack()


def transfer_key(state: BrokerState) -> TransferKey:
    """Return the one-time key of this nomination; it lives in memory only."""
    if state.transfer is None:
        state.transfer = new_transfer_key()
    return state.transfer


def _require_primary(state: BrokerState) -> None:
    if state.leaving is None:
        state.mesh()


def _check_head(state: BrokerState, page: JournalPage, rows: list[JournalRow]) -> None:
    """Verify that the primary's CA key vouches for exactly these rows."""
    head = verified_head(state, page.head)
    last = Mark(rows[-1].sequence, rows[-1].hash.hex()) if rows else page.after
    if (head.sequence, head.hash) != (last.sequence, last.hash):
        raise MalformedMessageError("the signed head of the page names another row")


def _fork(state: BrokerState, batch: Batch, after: Mark) -> int:
    """Set this node's own later rows aside, if a later term makes that right."""
    election = state.election
    assert election is not None
    own_term = state.ledger.head.term
    if election.highest_term <= own_term:
        raise ForkedError(
            f"row {after.sequence + 1} has two contents in term {own_term}",
            hint="two nodes wrote in one term: certmesh audit verify on both",
        )
    orphaned = batch.fork_at(after)
    log(EventName.ROSTER_FORKED, after=after.sequence, orphaned=orphaned, term=own_term)
    return orphaned
