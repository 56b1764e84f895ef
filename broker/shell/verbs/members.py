"""The roster as people see it, and revocation."""

from broker.errors import ConflictError, NotFoundError
from broker.ledger.rows import CertificateRow, MemberRow
from broker.ledger.serving_reads import NEVER
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.lines import Lines, member_line
from broker.shell.naming import put_out
from broker.shell.pace import heard_within_s
from broker.shell.replication import durable_on
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.facts import MemberRevoked
from broker.wire.node import MemberLine
from broker.wire.roster import (
    CertificateLine,
    GetMember,
    GetReach,
    ListMembers,
    MembersView,
    MemberView,
    RevocationAnswer,
    RevokeMember,
)

PAGE_MAX = 500
UNTIL_DIGITS_MAX = 18
SERIALS_MAX = 1000
HOSTS_MAX = 200
"""Hosts named in one answer; `enforced_by` counts them all."""


def list_members(
    state: BrokerState, _batch: Batch, caller: Caller, request: ListMembers
) -> MembersView:
    """Return a page of the roster.

    Raises:
        ConflictError: `after` is not what a page in this order ends with.
    """
    state.known_mesh()
    limit = max(1, min(request.limit, PAGE_MAX))
    page, next_after = _page(state, caller, request, limit)
    lines = Lines(state, caller.now)
    found = (lines.of(row, held) for row, held in page)
    return MembersView(
        members=tuple(line for line in found if _is_wanted(line, request, caller.now)),
        total=state.ledger.member_count(),
        next_after=next_after,
    )


def _page(
    state: BrokerState, caller: Caller, request: ListMembers, limit: int
) -> tuple[list[tuple[MemberRow, CertificateRow | None]], str]:
    """Return the rows of a page in the wanted order, and what the next one begins behind."""
    if request.order == "host":
        rows = state.ledger.members_page(request.after, limit + 1)
        return rows[:limit], rows[limit - 1][0].host if len(rows) > limit else ""
    before = NEVER if request.expiring_s < 0 else caller.now + request.expiring_s
    rows = state.ledger.ending(before, limit + 1, _expiry_of(request.after))
    last = rows[limit - 1][0] if len(rows) > limit else None
    return rows[:limit], f"{last.serving_until}:{last.member_id}" if last is not None else ""


def _expiry_of(after: str) -> tuple[int, str]:
    until, colon, member_id = after.partition(":")
    if not after:
        return 0, ""
    if not colon or not until.isdecimal() or len(until) > UNTIL_DIGITS_MAX:
        raise ConflictError(
            f"{after[:80]!r} is no place in this order", hint="certmesh member list"
        )
    return int(until), member_id


def _is_wanted(line: MemberLine, request: ListMembers, now: UnixSeconds) -> bool:
    if request.state and request.state not in (line.state, line.delivery):
        return False
    if request.expiring_s < 0:
        return True
    return line.survives_until is not None and line.survives_until < now + request.expiring_s


def get_member(state: BrokerState, _batch: Batch, caller: Caller, request: GetMember) -> MemberView:
    """Return one member with its certificates."""
    state.known_mesh()
    member = _found(state, request.host)
    certificates = state.ledger.certificates_of(member.member_id, 50)
    current = next((c for c in certificates if c.serial == member.current_serial), None)
    return MemberView(
        member=member_line(state, member, current, caller.now),
        certificates=tuple(
            CertificateLine(
                serial=row.serial,
                not_before=UnixSeconds(row.not_before),
                not_after=UnixSeconds(row.not_after),
                state=row.state,
                fingerprint=row.fingerprint,
            )
            for row in certificates
        ),
    )


def get_reach(
    state: BrokerState, _batch: Batch, caller: Caller, request: GetReach
) -> RevocationAnswer:
    """Return who enforces an earlier revocation by now.

    Raises:
        ConflictError: The member is not revoked.
    """
    state.mesh()
    member = _found(state, request.host)
    if member.state != "revoked":
        raise ConflictError(
            f"{member.host} is not revoked", hint=f"certmesh member revoke {member.host}"
        )
    return _reach(state, caller, member)


def revoke_member(
    state: BrokerState, batch: Batch, caller: Caller, request: RevokeMember
) -> RevocationAnswer:
    """Revoke identity and all serials; this node refuses them from the next request on."""
    state.mesh()
    member = _found(state, request.host)
    if member.member_id == (state.membership.member_id if state.membership else ""):
        raise ConflictError(
            "the primary cannot revoke itself",
            hint="hand over first, or destroy the mesh",
        )
    if member.state == "revoked":
        raise ConflictError(f"{member.host} is revoked already")
    if not request.dry_run:
        fact = MemberRevoked(member.member_id, member.host, request.reason)
        put_out(state, batch, fact, request.operator)
    return _reach(state, caller, member)


def _reach(state: BrokerState, caller: Caller, member: MemberRow) -> RevocationAnswer:
    """Return who refuses a member as far as this primary knows; before it is revoked, nobody."""
    version = state.ledger.revoked_by(member.member_id)
    term, sequence = version or (state.ledger.term, state.ledger.head.sequence + 1)
    own_id = state.membership.member_id if state.membership else ""
    others = (
        (member_id, host)
        for member_id, host in state.ledger.active_members()
        if member_id not in (own_id, member.member_id)
    )
    reach = state.presence.reach(others, (term, sequence), caller.now, heard_within_s(state))
    standbys, durable = durable_on(state, sequence, caller.now_ms)
    return RevocationAnswer(
        host=member.host,
        member_id=member.member_id,
        serials=tuple(
            row.serial
            for row in state.ledger.certificates_of(member.member_id, SERIALS_MAX)
            if row.not_after >= caller.now
        ),
        sequence=sequence,
        enforced_by=reach.enforcing + (version is not None),
        members=state.ledger.member_count(),
        standbys=standbys,
        standbys_durable=durable,
        lacking=reach.lacking[:HOSTS_MAX],
        away=reach.away[:HOSTS_MAX],
    )


def _found(state: BrokerState, host: str) -> MemberRow:
    member = state.ledger.member_by_host(host) or state.ledger.latest_member_of_host(host)
    if member is None:
        raise NotFoundError(f"no member {host!r}", hint="certmesh member list")
    return member
