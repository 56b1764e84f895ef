"""Whose turn it is to be renewed: the pace of attempts, as the broker keeps it.

One entry per host: the CA's by member id, whichever way the attempt comes; this node's own under
`OWN`, whoever asks it for a new key. Nothing about it is a row of the journal.
"""

from broker.clock import boottime_ms, wall_s
from broker.core.lease import Grant
from broker.core.pace import pace_ms, since_issue_ms
from broker.core.renewal import BACKDATE_S, pull_at
from broker.errors import ThrottledError
from broker.ledger.rows import CertificateRow, MemberRow
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.units import Millis, UnixSeconds
from broker.wire.work import Rekey, RenewMember, RenewOwn, WorkItem

LOCAL_PACE = "pace"
OWN = ("own",)
"""The key of this node's own certificate, among leases and backoffs too."""
_OWN = "own"


def member_every_ms(state: BrokerState) -> int:
    """Return the pace of the mesh's members."""
    mesh, settings = state.mesh_row(), state.settings
    lifetime_s = mesh.policy.leaf_lifetime_s if mesh else settings.policy.leaf_lifetime.s
    return pace_ms(settings.renewal.attempt_every.ms, lifetime_s)


def pull_turn_ms(
    state: BrokerState, member_id: str, newest: CertificateRow | None, caller: Caller
) -> int:
    """Return from when on a member may have an attempt; boot time, in the past when it is now."""
    every_ms = member_every_ms(state)
    turn_ms = state.pace.turn_ms(member_id, every_ms)
    if turn_ms is None:
        # After a restart, or a takeover, the ledger is what remembers.
        wait_ms = since_issue_ms(newest.not_before, caller.now, every_ms) if newest else 0
        turn_ms = caller.now_ms + wait_ms
    return turn_ms


def push_turn_ms(
    state: BrokerState, member: MemberRow, newest: CertificateRow, caller: Caller
) -> int:
    """Return from when on the sweep may try a member: backoff over, its turn, and not its own.

    One that renewed itself the last time is left to do so again: the sweep comes a turn later than
    the member would. So a host that cannot be reached is no failure as long as it comes by itself.
    """
    backoff = state.backoff.get(("member", member.member_id))
    yields_ms = state.pace.kept_until_ms(member.member_id)
    if state.pace.pulls(member.member_id):
        issued_at = UnixSeconds(newest.not_before + BACKDATE_S)
        ends = UnixSeconds(newest.not_after)
        comes_at = pull_at(_due_without_jitter(state, newest), issued_at, ends)
        comes_ms = caller.now_ms + (comes_at - caller.now) * 1000
        yields_ms = max(yields_ms, comes_ms + member_every_ms(state))
    return max(
        pull_turn_ms(state, member.member_id, newest, caller),
        yields_ms,
        backoff.not_before_ms if backoff is not None else 0,
    )


def _due_without_jitter(state: BrokerState, newest: CertificateRow) -> UnixSeconds:
    """Return when the member itself finds its certificate due: it does not know what was drawn."""
    mesh, issued_at = state.mesh_row(), newest.not_before + BACKDATE_S
    used_s = (newest.not_after - issued_at) * mesh.policy.renew_at if mesh is not None else 0
    return UnixSeconds(max(newest.renew_at, int(issued_at + used_s)))


def own_every_ms(state: BrokerState) -> int:
    """Return the pace of this node's own renewals."""
    own, every_ms = state.own, state.settings.renewal.attempt_every.ms
    if not own.present or own.not_before is None or own.not_after is None:
        return every_ms
    return pace_ms(every_ms, max(0, own.not_after - own.not_before - BACKDATE_S))


def own_turn_ms(state: BrokerState, now_ms: Millis, now: UnixSeconds) -> int:
    """Return from when on this node may try to renew itself; boot time, no backoff in it."""
    own, every_ms = state.own, own_every_ms(state)
    turn_ms = state.pace.turn_ms(_OWN, every_ms)
    if turn_ms is None:
        known = own.present and own.not_before is not None
        held_ms = since_issue_ms(own.not_before or 0, now, every_ms) if known else 0
        turn_ms = now_ms + held_ms
    return turn_ms


def check_own_turn(state: BrokerState, caller: Caller) -> None:
    """Refuse a person's wish for a renewal that would have to wait.

    Raises:
        ThrottledError: Says when the last attempt was, and when the next may be.
    """
    wait_ms = own_turn_ms(state, caller.now_ms, caller.now) - caller.now_ms
    if wait_ms <= 0:
        return
    began_ms = state.pace.began_ms(_OWN)
    if began_ms is not None:
        ago_s = (caller.now_ms - began_ms) // 1000
        last = f"the last attempt to renew {state.host} began {ago_s} s ago"
    else:
        ago_s = max(0, caller.now - ((state.own.not_before or 0) + BACKDATE_S))
        last = f"the certificate of {state.host} was issued {ago_s} s ago"
    raise _throttled(last, wait_ms, own_every_ms(state))


def begin_pull(state: BrokerState, batch: Batch, caller: Caller, member: MemberRow) -> None:
    """Begin an attempt of a member that asks for itself, with a key that has no certificate yet.

    Too early, it has the next turn: the sweep leaves that to it.

    Raises:
        ThrottledError: It is not its turn; says when it is.
    """
    newest = next(iter(state.ledger.certificates_of(member.member_id, 1)), None)
    turn_ms = pull_turn_ms(state, member.member_id, newest, caller)
    wait_ms = turn_ms - caller.now_ms
    if wait_ms > 0:
        keep_turn(state, member, turn_ms)
        last = f"the last attempt to renew {member.host} was a moment ago"
        raise _throttled(last, wait_ms, member_every_ms(state))
    _begin(state, batch, member.member_id, caller.now_ms)


def keep_turn(state: BrokerState, member: MemberRow, turn_ms: int) -> None:
    """Leave the turn that opens at `turn_ms` to the member itself: it asked and had to wait."""
    every_ms = member_every_ms(state)
    opens_ms = max(turn_ms, state.pace.turn_ms(member.member_id, every_ms) or 0)
    state.pace.ask(member.member_id, opens_ms, every_ms)


def begin_work(state: BrokerState, batch: Batch, grant: Grant) -> None:
    """Begin the attempt that a grant is, if it is one."""
    key = _pace_key(grant.item)
    if key:
        _begin(state, batch, key, grant.granted_ms)


def hand_back(state: BrokerState, grant: Grant) -> None:
    """Let the next worker go on with an attempt that was handed back politely."""
    key = _pace_key(grant.item)
    if key and isinstance(grant.item, RenewMember | RenewOwn):
        state.pace.put_back(key, None)


def issued_in_turn(state: BrokerState, batch: Batch, member: MemberRow, *, pulled: bool) -> None:
    """Note with the commit that the ledger tells of this attempt from now on."""

    def note() -> None:
        state.pace.succeeded(member.member_id, pulled=pulled)
        if member.host == state.host:
            state.pace.succeeded(_OWN, pulled=pulled)

    batch.after_commit.append(note)


def restore_turns(state: BrokerState) -> None:
    """Take up the attempts of the last life of this broker that came to nothing."""
    raw = state.ledger.local_get(LOCAL_PACE)
    if raw:
        state.pace.restore(raw, boottime_ms(), wall_s())


def flush_turns(state: BrokerState, batch: Batch, now: UnixSeconds) -> None:
    """Save what changed since the last time."""
    raw = state.pace.take_dirty(boottime_ms(), now)
    if raw:
        batch.on_void.append(state.pace.mark_dirty)
        batch.keep(LOCAL_PACE, raw)


def _begin(state: BrokerState, batch: Batch, key: str, now_ms: Millis) -> None:
    before = state.pace.begin(key, now_ms, state.settings.renewal.attempt_every.ms)
    batch.on_void.append(lambda: state.pace.put_back(key, before))


def _pace_key(item: WorkItem) -> str:
    match item:
        case RenewMember(member_id=member_id):
            return member_id
        case RenewOwn() | Rekey():
            # Whoever asks for the key: after a push this node does not pull at once.
            return _OWN
        case _:
            return ""


def _throttled(last: str, wait_ms: int, every_ms: int) -> ThrottledError:
    return ThrottledError(
        f"{last}; a host is tried at most once in {every_ms / 1000:g} s",
        hint=f"wait {-(-wait_ms // 1000)} s ([renewal] attempt_every)",
        retry_after_ms=wait_ms,
    )
