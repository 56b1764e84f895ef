"""The roster as people see it, and revocation."""

from broker.errors import ConflictError, NotFoundError
from broker.ledger.rows import MemberRow
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.lines import member_line
from broker.shell.replication import durable_on
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.events import BundleMoved
from broker.wire.facts import MemberRevoked
from broker.wire.roster import (
    CertificateLine,
    GetMember,
    ListMembers,
    MembersView,
    MemberView,
    RevocationAnswer,
    RevokeMember,
)

PAGE_MAX = 500


def list_members(
    state: BrokerState, _batch: Batch, caller: Caller, request: ListMembers
) -> MembersView:
    """Return a page of the roster in host order."""
    state.known_mesh()
    limit = max(1, min(request.limit, PAGE_MAX))
    rows = state.ledger.members_page(request.after, limit + 1)
    page = rows[:limit]
    return MembersView(
        members=tuple(member_line(state, row, cert, caller.now) for row, cert in page),
        total=state.ledger.member_count(),
        next_after=page[-1][0].host if len(rows) > limit else "",
    )


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
    serials = tuple(
        row.serial
        for row in state.ledger.certificates_of(member.member_id, 1000)
        if row.not_after >= caller.now
    )
    if not request.dry_run:
        fact = MemberRevoked(member.member_id, member.host, request.reason)
        batch.append(fact, request.operator)
        batch.publish(BundleMoved(state.ledger.bundle_sequence()))
    sequence = state.ledger.bundle_sequence()
    standbys, durable = durable_on(state, state.ledger.head.sequence, caller.now_ms)
    return RevocationAnswer(
        host=member.host,
        member_id=member.member_id,
        serials=serials,
        sequence=sequence,
        enforced_by=1 + state.presence.enforcing(sequence, caller.now),
        members=state.ledger.member_count(),
        standbys=standbys,
        standbys_durable=durable,
    )


def _found(state: BrokerState, host: str) -> MemberRow:
    member = state.ledger.member_by_host(host) or state.ledger.latest_member_of_host(host)
    if member is None:
        raise NotFoundError(f"no member {host!r}", hint="certmesh member list")
    return member
