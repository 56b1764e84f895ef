"""The journal's way to the standbys, seen from the primary: pages, acknowledgements, waiting.

A request for rows says what its sender has on its own disk, so it is the acknowledgement of
everything before. A follower with nothing to fetch waits here; the next commit answers it.
"""

from broker.core.followers import Followers
from broker.core.paging import pack_page
from broker.errors import CALockedError, ForkedError, NotPrimaryError
from broker.ledger.lines import line_of
from broker.shell.books import Poll
from broker.shell.gossip import head_for
from broker.shell.state import BrokerState
from broker.units import Millis, UnixSeconds
from broker.wire.claims import Head
from broker.wire.codec import fault_of
from broker.wire.replica import PAGE_BYTES_MAX, JournalAnswer, JournalPage, Locator, Mark

POLLS_MAX = 64


def note_follower(state: BrokerState, host: str, locator: Locator, now_ms: Millis) -> Mark:
    """Note what a follower has, and return the newest row both journals share.

    Raises:
        ForkedError: The journals share nothing, not even the first row.
    """
    common = state.ledger.common_mark(locator)
    if common is None or (common.sequence == 0 and len(locator) > 1):
        raise ForkedError(
            f"the journal of {host} has no row in common with this one",
            hint="it belongs to another mesh, or one of the ledgers was replaced",
        )
    newest = locator[0] if locator else common
    if newest == common and state.replication.followers is not None:
        state.replication.followers.note(host, common.sequence, now_ms)
    return common


def page_after(state: BrokerState, mark: Mark, now: UnixSeconds) -> JournalAnswer:
    """Return the rows behind `mark` with the signed head of the last of them.

    Raises:
        CALockedError: Nothing can be signed now.
    """
    if state.keys.issuer is None:
        raise CALockedError(f"the CA key on {state.host} is locked", hint="certmesh ca unlock")
    rows = state.ledger.rows_after(mark.sequence, PAGE_BYTES_MAX)
    end = state.ledger.head.sequence
    last = (
        Head(rows[-1].term, rows[-1].sequence, rows[-1].hash.hex(), state.host, now)
        if rows
        else Head(state.ledger.head.term, mark.sequence, mark.hash, state.host, now)
    )
    page = JournalPage(
        after=mark,
        lines=tuple(line_of(row) for row in rows),
        head=head_for(state, last),
        behind=end - last.sequence,
    )
    return JournalAnswer(pack_page(page))


def answer_polls(state: BrokerState, now: UnixSeconds) -> None:
    """Answer everybody who waited for the rows that were just committed."""
    polls = state.replication.polls
    while polls:
        request_id, poll = polls.popitem(last=False)
        mark = state.ledger.common_mark(poll.locator)
        if mark is None or state.keys.issuer is None:
            refusal = CALockedError("the CA key was locked meanwhile", retry_after_ms=1000)
            state.resolve(request_id, fault_of(refusal))
            continue
        state.resolve(request_id, page_after(state, mark, now))


def end_polls(state: BrokerState, now_ms: Millis, now: UnixSeconds) -> None:
    """Answer those whose time is over with an empty page: they ask again."""
    polls = state.replication.polls
    over = [key for key, poll in polls.items() if now_ms >= poll.until_ms]
    for request_id in over:
        poll = polls.pop(request_id)
        mark = state.ledger.common_mark(poll.locator)
        if mark is not None and state.keys.issuer is not None and state.serves:
            state.resolve(request_id, page_after(state, mark, now))


def refuse_polls(state: BrokerState) -> None:
    """Send the followers away: this node is no primary any more."""
    refusal = NotPrimaryError(f"{state.host} is not the primary any more")
    while state.replication.polls:
        request_id, _ = state.replication.polls.popitem(last=False)
        state.resolve(request_id, fault_of(refusal))


def keep_poll(state: BrokerState, request_id: bytes, poll: Poll) -> None:
    """Let a follower wait, once: the link repeats a request that takes long, under its own id.

    A new question of the same follower replaces an older one, whose asker is gone.
    """
    polls = state.replication.polls
    for earlier in [key for key, old in polls.items() if old.host == poll.host]:
        if earlier != request_id:
            del polls[earlier]
            state.waiting.pop(earlier, None)
    polls.setdefault(request_id, poll)
    if len(polls) > POLLS_MAX:
        polls.popitem(last=False)


def durable_on(state: BrokerState, sequence: int, now_ms: Millis) -> tuple[int, int]:
    """Return how many living standbys there are, and how many have this row on disk."""
    followers = state.replication.followers
    return followers.durable_on(sequence, now_ms) if followers is not None else (0, 0)


def begin_reign(state: BrokerState, now_ms: Millis) -> None:
    """Know nothing of followers yet; what was shown of this journal before stays shown."""
    assert state.election is not None
    durable = state.ledger.durable_head.sequence
    shown = min(state.election.highest_head.sequence, durable)
    state.replication.followers = Followers(state.settings.failover.grace.ms, now_ms, shown)
