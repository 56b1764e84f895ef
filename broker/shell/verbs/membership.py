"""A member's way out, its way back, and its name."""

from msgspec.structs import replace

from broker.core.names import check_new_host, server_name
from broker.core.policy import check_names, host_sans
from broker.errors import AlreadyEnrolledError, ConflictError, NotFoundError
from broker.ledger.rows import MemberRow, MeshRow
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.lines import member_line
from broker.shell.naming import check_not_taken, put_out, refuse_key_holder
from broker.shell.peers import authorize_member
from broker.shell.state import BrokerState
from broker.wire.control import Ack
from broker.wire.facts import MemberReinstated, MemberRenamed, MemberRevoked
from broker.wire.roster import LeaveMesh, MemberView, ReinstateMember, RenameMember


def leave_mesh(state: BrokerState, batch: Batch, caller: Caller, request: LeaveMesh) -> Ack:
    """Let a member go at its own wish: its certificates end, its name is free.

    Raises:
        ConflictError: It holds the CA key, which it must give back first.
    """
    state.mesh()
    member = authorize_member(state, batch, caller, request.peer)
    try:
        refuse_key_holder(member)
    except AlreadyEnrolledError as refusal:
        raise ConflictError(refusal.detail, hint=refusal.hint) from None
    fact = MemberRevoked(member.member_id, member.host, "left by itself", "left")
    put_out(state, batch, fact, member.host)
    return Ack()


def reinstate_member(
    state: BrokerState, batch: Batch, caller: Caller, request: ReinstateMember
) -> Ack:
    """Free the name of a revoked member; whoever takes it is somebody new.

    Raises:
        ConflictError: The name is in use, was never used, or is free already.
    """
    state.mesh()
    state.full_powers(caller.now_ms)
    host = request.host
    if state.ledger.member_by_host(host) is not None:
        raise ConflictError(f"{host} is an active member; there is nothing to lift")
    if state.ledger.latest_member_of_host(host) is None:
        raise ConflictError(f"nobody was ever called {host!r} here", hint="certmesh member list")
    bar = state.ledger.bar_of(host)
    if bar is None:
        raise ConflictError(
            f"the name {host} is free already", hint=f"certmesh invite create {host}"
        )
    batch.append(MemberReinstated(host, bar.member_id), request.operator)
    return Ack()


def rename_member(
    state: BrokerState, batch: Batch, caller: Caller, request: RenameMember
) -> MemberView:
    """Give a member another name; it learns it from the answer to its next heartbeat.

    Raises:
        NotFoundError: No active member of that name.
        NameNotAllowedError: Not a host name, outside the policy, or a name of another member.
        ConflictError: The new name is taken or barred, or the member holds the CA key.
    """
    mesh = state.mesh()
    state.full_powers(caller.now_ms)
    member = state.ledger.member_by_host(request.host)
    if member is None:
        raise NotFoundError(f"no active member {request.host!r}", hint="certmesh member list")
    new = check_new_host(request.new_host, mesh.domain)
    _refuse_unrenamable(member)
    _refuse_taken(state, member, new)
    fact = _renaming(mesh, member, new)
    check_names(mesh.policy, mesh.domain, fact.sans)
    check_not_taken(state, mesh.domain, new, fact.sans, before=member.host)
    if not request.dry_run:
        batch.append(fact, request.operator)
    certificate = state.ledger.certificate(member.current_serial)
    line = member_line(state, member, certificate[1] if certificate else None, caller.now)
    return MemberView(member=replace(line, host=new, sans=fact.sans), certificates=())


def _refuse_unrenamable(member: MemberRow) -> None:
    """Refuse a key holder: the others know it by its name in beats, claims and key packages."""
    try:
        refuse_key_holder(member)
    except AlreadyEnrolledError as refusal:
        raise ConflictError(
            f"{refusal.detail}, and those are known by their names",
            hint=f"{refusal.hint}; rename it as a plain member",
        ) from None


def _refuse_taken(state: BrokerState, member: MemberRow, new: str) -> None:
    if new == member.host:
        raise ConflictError(f"{new} is its name already")
    if state.ledger.member_by_host(new) is not None:
        raise ConflictError(f"{new} is an active member", hint="choose another name")
    if state.ledger.bar_of(new) is not None:
        raise ConflictError(
            f"the name {new} was revoked", hint=f"certmesh member reinstate {new} frees it"
        )


def _renaming(mesh: MeshRow, member: MemberRow, new: str) -> MemberRenamed:
    """Return the new names: those made of the old name give way, extras and addresses stay."""
    own = {server_name(member.host, mesh.domain), f"{member.host}.local", member.host}
    kept = [san for san in member.sans if san not in own]
    name = server_name(new, mesh.domain)
    return MemberRenamed(
        member_id=member.member_id,
        before=member.host,
        host=new,
        sans=host_sans(mesh.policy, new, mesh.domain, (), kept),
        endpoint=replace(member.endpoint, host=new, server_name=name),
    )
