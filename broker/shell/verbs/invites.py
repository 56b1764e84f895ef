"""Invites and the enrollment door."""

from broker.core.names import check_new_host
from broker.core.policy import check_names
from broker.errors import (
    AlreadyEnrolledError,
    ConflictError,
    NotFoundError,
)
from broker.ledger.rows import InviteRow, MemberRow
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.naming import check_not_taken, refuse_key_holder
from broker.shell.peers import primary_doors
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.control import Ack
from broker.wire.enrollment import (
    CreateInvite,
    EnrollmentView,
    GetEnrollment,
    InvitesView,
    InviteView,
    ListInvites,
    RevokeInvite,
    SetEnrollment,
)
from broker.wire.facts import EnrollmentClosed, EnrollmentOpened, InviteCreated, InviteRevoked

TTL_S_MAX = 366 * 86_400
"""Nobody needs a ticket for longer, and no date leaves the range every reader accepts."""


def create_invite(
    state: BrokerState, batch: Batch, caller: Caller, request: CreateInvite
) -> InviteView:
    """Register a single-use, host-bound permission to join."""
    mesh = state.mesh()
    state.full_powers(caller.now_ms)
    host = check_new_host(request.host, mesh.domain)
    check_names(mesh.policy, mesh.domain, request.sans)
    check_not_taken(state, mesh.domain, host, request.sans)
    _check_holder(state.ledger.member_by_host(host), rejoin=request.rejoin)
    if state.ledger.invite(request.secret_hash) is not None:
        raise ConflictError("this invite exists already")
    ttl_s = min(request.ttl_s or state.settings.enrollment.invite_ttl.s, TTL_S_MAX)
    fact = InviteCreated(
        invite_id=request.secret_hash,
        host=host,
        sans=request.sans,
        expires_at=UnixSeconds(caller.now + ttl_s),
        rejoin=request.rejoin,
    )
    batch.append(fact, request.operator)
    row = state.ledger.invite(request.secret_hash)
    assert row is not None
    return _view(state, row, caller.now)


def list_invites(
    state: BrokerState, _batch: Batch, caller: Caller, request: ListInvites
) -> InvitesView:
    """Return the newest invites."""
    state.known_mesh()
    rows = state.ledger.invites(min(request.limit, 200))
    return InvitesView(tuple(_view(state, row, caller.now) for row in rows))


def revoke_invite(state: BrokerState, batch: Batch, _caller: Caller, request: RevokeInvite) -> Ack:
    """Make an unused invite worthless; an id may be shortened while it is unambiguous."""
    state.mesh()
    found = state.ledger.invites_beginning(request.invite_id) if request.invite_id else []
    if len(found) != 1:
        raise NotFoundError("no such invite", hint="certmesh invite list")
    if found[0].state != "open":
        raise ConflictError(f"this invite is {found[0].state} already")
    batch.append(InviteRevoked(found[0].invite_id), request.operator)
    return Ack()


def get_enrollment(
    state: BrokerState, _batch: Batch, _caller: Caller, _request: GetEnrollment
) -> EnrollmentView:
    """Return whether the TOTP door is open."""
    mesh = state.known_mesh()
    return EnrollmentView(open=mesh.enrollment_open, approval=mesh.approval)


def set_enrollment(
    state: BrokerState, batch: Batch, caller: Caller, request: SetEnrollment
) -> EnrollmentView:
    """Open or close the TOTP door; setting it as it is changes nothing."""
    mesh = state.mesh()
    state.full_powers(caller.now_ms)
    if mesh.enrollment_open != request.open:
        batch.append(EnrollmentOpened() if request.open else EnrollmentClosed(), request.operator)
    return EnrollmentView(open=request.open, approval=mesh.approval)


def _check_holder(holder: MemberRow | None, *, rejoin: bool) -> None:
    """Refuse an invite for a name in use, unless it is meant to replace its holder.

    Raises:
        AlreadyEnrolledError: It was not meant to, or the holder has the CA key.
    """
    if holder is None:
        return
    refuse_key_holder(holder)
    if not rejoin:
        raise AlreadyEnrolledError(
            f"{holder.host} is an active member already",
            hint=f"certmesh invite create {holder.host} --rejoin, if the machine was rebuilt",
        )


def _view(state: BrokerState, row: InviteRow, now: UnixSeconds) -> InviteView:
    mesh, primary = state.known_mesh(), primary_doors(state)
    assert primary is not None
    expired = row.state == "open" and row.expires_at <= now
    return InviteView(
        invite_id=row.invite_id,
        host=row.host,
        sans=row.sans,
        expires_at=UnixSeconds(row.expires_at),
        state="expired" if expired else row.state,
        pin=mesh.pin,
        mesh_id=mesh.mesh_id,
        primary=primary,
        rejoin=row.rejoin,
    )
