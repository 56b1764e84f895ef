"""The sweep: which members are due and may be tried now, those that answer first.

Due dates are wall time and read again with every look, so a suspend, or a clock that is set, moves
nothing but the moment. One look walks the due rows in pages: members heard lately are offered as
they are found, silent ones once the walk is over, so that no number of machines that are away holds
up the ones that are there.
"""

from collections.abc import Iterator

from broker.ledger.rows import CertificateRow, MemberRow
from broker.shell.caller import Caller
from broker.shell.pace import heard_within_s
from broker.shell.state import BrokerState
from broker.shell.turns import push_turn_ms
from broker.units import UnixSeconds

DUE_PAGE = 32
BEFORE_ALL = (-1, "")
PAGES_PER_LOOK = 32
"""Bounds one look at about ten milliseconds."""
SCAN_EVERY_MS = 500
"""After a page without a ready member: how long the ledger is left alone."""
AWAY_MAX = 4_096
"""Silent members kept aside during one walk; further ones are found by the next."""
AWAY_LOOKS = 256
"""Of these, how many one look checks again: a few milliseconds, if all came back meanwhile."""
LOOK_ON_MS = 20
"""In the middle of a walk over more rows than one look reads."""

DueRow = tuple[MemberRow, CertificateRow]


def due_members(state: BrokerState, caller: Caller) -> Iterator[DueRow]:
    """Yield members to renew now, with the certificate that is due; heard ones first.

    The rows of one look at the ledger are handed out before the next look, so that a sweep of
    many members costs each of them once; a row may have aged meanwhile and is checked again.
    """
    if not state.serves or state.keys.issuer is None:
        return
    for _ in range(PAGES_PER_LOOK):
        if not state.due and not _scan(state, caller):
            break
        while state.due:
            yield from _if_still_due(state, state.due.popleft(), caller)
    for _ in range(AWAY_LOOKS):
        if state.due_after != BEFORE_ALL or not state.due_away:
            break
        yield from _if_still_due(state, state.due_away.popleft(), caller)


def next_sweep_ms(state: BrokerState, caller: Caller) -> int | None:
    """Return in how many ms a look may find a member, after one that found none; None: no idea.

    Exact, so that members that back off, wait for their turn or have expired keep nobody awake.
    """
    if not state.serves or state.keys.issuer is None:
        return None
    if state.due or state.due_away or state.due_after != BEFORE_ALL:
        return LOOK_ON_MS
    moments = [state.due_wake_ms]
    if state.due_not_before_ms < caller.now_ms + SCAN_EVERY_MS:
        # This look read nothing: the last one was a moment ago.
        moments.append(state.due_not_before_ms)
    waits = [at - caller.now_ms for at in moments if at > caller.now_ms]
    due_at = state.ledger.next_renew_after(caller.now)
    if due_at is not None:
        waits.append((due_at - caller.now) * 1000)
    return min(waits, default=None)


def _scan(state: BrokerState, caller: Caller) -> bool:
    """Look at the next page of due rows; return whether looking further may find something.

    After the last page the next look begins again, a moment later. Paging keeps a look short
    however many members back off, and lets none of them hide another.
    """
    if caller.now_ms < state.due_not_before_ms:
        return False
    first = state.due_after == BEFORE_ALL
    if first:
        state.due_away.clear()
        state.due_wake_ms = 0
    rows = state.ledger.due(caller.now, DUE_PAGE, state.due_after)
    heard_since = caller.now - heard_within_s(state)
    for row in rows:
        if _may_be_tried(state, row, caller):
            _put(state, row, heard_since)
    if len(rows) < DUE_PAGE:
        state.due_after = BEFORE_ALL
        found = state.due or (first and state.due_away)
        state.due_not_before_ms = 0 if found else caller.now_ms + SCAN_EVERY_MS
    else:
        last_member, last_certificate = rows[-1]
        state.due_after = (last_certificate.renew_at, last_member.member_id)
    return bool(state.due) or len(rows) == DUE_PAGE


def _put(state: BrokerState, row: DueRow, heard_since: int) -> None:
    presence = state.presence.of(row[0].member_id)
    # One that never spoke is new, not away.
    if presence is None or presence.seen_at >= heard_since:
        state.due.append(row)
    elif len(state.due_away) < AWAY_MAX:
        state.due_away.append(row)


def _may_be_tried(state: BrokerState, row: DueRow, caller: Caller) -> bool:
    """Return whether it is the member's turn; if not, remember when it will be."""
    member, certificate = row
    expired = certificate.not_after <= caller.now
    if member.host == state.host or expired or _is_held(state, member):
        return False
    turn_ms = push_turn_ms(state, member, certificate, caller)
    if turn_ms > caller.now_ms:
        state.due_wake_ms = min(state.due_wake_ms or turn_ms, turn_ms)
        return False
    return True


def _if_still_due(state: BrokerState, row: DueRow, caller: Caller) -> Iterator[DueRow]:
    """Yield a row read earlier, as it is now, if it still describes a member to renew now."""
    member, certificate = row
    fresh = state.ledger.member(member.member_id)
    if (
        fresh is not None
        and fresh.state == "active"
        and fresh.current_serial == certificate.serial
        and UnixSeconds(certificate.renew_at) <= caller.now
        and _may_be_tried(state, (fresh, certificate), caller)
    ):
        yield fresh, certificate


def _is_held(state: BrokerState, member: MemberRow) -> bool:
    return state.leases.is_held(("member", member.member_id))
