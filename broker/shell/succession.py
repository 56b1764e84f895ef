"""The election's hands: makes its effects durable, in the order that is safe.

A promotion is one transaction with its first row, and nothing is announced before the commit. A
step down has already happened when it is written: a disk that refuses must not keep a node
serving.
"""

from collections.abc import Iterable

from broker.core.election import Election
from broker.core.observation import Observation
from broker.core.phases import Effect, Follow, HandOver, Moved, Promote, Turn, Withhold
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.bundling import keep_refusing
from broker.shell.gossip import keep_newest, sign_next_beat
from broker.shell.handover import begin_leaving, finish_leaving
from broker.shell.standing import store_standing, tell_leader, tell_moved
from broker.shell.state import BrokerState
from broker.units import Millis
from broker.wire.claims import Claim, Gossip
from broker.wire.events import AuthorityMoved, BundleMoved, WorkAvailable
from broker.wire.facts import (
    AuthorityUnlocked,
    FailoverConfirmed,
    FailoverPromoted,
    MemberRevoked,
)
from broker.wire.ids import Service
from broker.wire.replica import Mark

ACTOR = "failover"
WITHHELD_EVERY_MS = 60_000


def hear(
    state: BrokerState, batch: Batch, seen: Observation, gossip: Gossip, now_ms: Millis
) -> None:
    """Let the election hear one authenticated message, and do what follows from it."""
    election = state.election
    if election is None:
        return
    if seen.claim is not None:
        state.claims[seen.sender] = seen.claim
    effects = election.hear(seen, now_ms)
    if seen.claim is not None and _is_foreign(state, election, seen.claim):
        effects += election.contest(f"{seen.sender} has rows of this term that are not here")
    keep_newest(state, gossip)
    carry_out(state, batch, effects, now_ms)
    if effects or election.role == "standby":
        # A last beat with this node's name in it is obeyed now, not at the next tick.
        carry_out(state, batch, election.tick(state.surroundings(), now_ms), now_ms)


def _is_foreign(state: BrokerState, election: Election, claim: Claim) -> bool:
    """Whether a key holder's journal ends with a row of this primary's own term that it lacks.

    Somebody else wrote it, or this journal lost it; only a new term can stand above both.
    """
    if election.role != "primary" or claim.version_term != election.term:
        return False
    return state.ledger.common_mark((Mark(claim.sequence, claim.hash),)) is None


def pass_time(state: BrokerState, batch: Batch, now_ms: Millis) -> None:
    """Let the election's time pass, and do what is due."""
    election = state.election
    if election is None:
        return
    carry_out(state, batch, election.tick(state.surroundings(), now_ms), now_ms)
    finish_leaving(state, batch, now_ms)
    _beat(state, now_ms)
    _write_down_unlock(state, batch)


def carry_out(state: BrokerState, batch: Batch, effects: Iterable[Effect], now_ms: Millis) -> None:
    """Do what the election asks for, and store where it stands if that changed."""
    for effect in effects:
        match effect:
            case Moved():
                tell_moved(state, batch, effect)
                _confirmed(state, batch, effect)
            case Promote():
                promote(state, batch, effect, now_ms)
            case Withhold(reason=reason):
                if state.refusals.passes(("withheld", reason), now_ms, WITHHELD_EVERY_MS):
                    log(EventName.FAILOVER_WITHHELD, reason=reason)
            case HandOver(successor=successor):
                begin_leaving(state, batch, successor, "asked for by its operator", now_ms)
            case Follow(host=host, term=term):
                tell_leader(state, batch, host, term)
    store_standing(state, batch)


def promote(state: BrokerState, batch: Batch, wanted: Promote, now_ms: Millis) -> None:
    """Become primary in a new term: the row, the term and the standing are one transaction.

    Nothing is signed in the new term before it is durable: a term that a full disk took back must
    not be known to anybody.
    """
    election, membership = state.election, state.membership
    assert election is not None
    assert membership is not None
    _undo_if_void(state, batch, election, wanted.term)
    batch.set_term(wanted.term)
    fact = FailoverPromoted(
        member_id=membership.member_id,
        host=state.host,
        cause=wanted.cause,
        evidence=wanted.evidence[:1024],
        caretaker=wanted.caretaker,
    )
    batch.append(fact, ACTOR, opening=True)
    _take_over_revocations(state, batch)
    tell_moved(state, batch, election.promoted(wanted, now_ms))
    store_standing(state, batch)
    batch.after_commit.append(lambda: setattr(state.gossip, "next_beat_ms", 0))
    batch.publish(AuthorityMoved("unlocked"))
    batch.publish(BundleMoved(state.ledger.bundle_sequence()))
    batch.publish(WorkAvailable(Service.RENEWAL))
    batch.publish(WorkAvailable(Service.APPROVAL))


def _undo_if_void(state: BrokerState, batch: Batch, election: Election, term: int) -> None:
    """Forget a promotion that was not committed; a step down of the same drain stands."""
    before = {**vars(election), "beats": dict(election.beats)}
    followers = state.replication.followers

    def undo() -> None:
        if election.term != term:
            return
        if not election.serving:
            election.term = before["term"]
            return
        vars(election).update(before)
        state.replication.followers = followers

    batch.on_void.append(undo)


def _take_over_revocations(state: BrokerState, batch: Batch) -> None:
    """Revoke here whom the earlier primary revoked, if its bundle came and its row did not."""
    bundle = state.follow.bundle
    if bundle is None:
        return
    for member_id in bundle.revoked_members:
        member = state.ledger.member(member_id)
        if member is not None and member.state == "active":
            reason = f"revoked by {bundle.head.primary} in term {bundle.head.term}"
            batch.append(MemberRevoked(member_id, member.host, reason), ACTOR, opening=True)
    # Of members that no journal has any more: a backup was restored in that term or before.
    keep_refusing(state, batch, bundle.revoked_serials)


def confirm(state: BrokerState, batch: Batch, reason: str, actor: str) -> None:
    """Write down that a caretaker has full powers."""
    batch.append(FailoverConfirmed(state.host, reason), actor)


def _confirmed(state: BrokerState, batch: Batch, moved: Moved) -> None:
    if moved.turn is Turn.CONFIRMED and state.serves:
        confirm(state, batch, moved.detail, ACTOR)


def _beat(state: BrokerState, now_ms: Millis) -> None:
    """Sign a beat every probe period, while this node serves and can."""
    if not state.serves or state.keys.issuer is None or now_ms < state.gossip.next_beat_ms:
        return
    if state.election is None or state.ledger.durable_head.term != state.election.term:
        return  # this term is still to be committed
    state.gossip.next_beat_ms = now_ms + state.settings.failover.tick.ms
    sign_next_beat(state)


def _write_down_unlock(state: BrokerState, batch: Batch) -> None:
    """Give the audit trail the unlock that happened while this node could not write."""
    if state.keys.opened_by and state.serves:
        batch.append(AuthorityUnlocked(slot=state.keys.opened_by), "broker")
        batch.after_commit.append(lambda: setattr(state.keys, "opened_by", ""))
