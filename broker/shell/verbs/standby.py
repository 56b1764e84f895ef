"""Who may take over: nominated, ready, removed."""

from broker.errors import ConflictError, NotFoundError
from broker.ledger.rows import MemberRow
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.peers import authorize_member
from broker.shell.state import BrokerState
from broker.wire.control import Ack
from broker.wire.events import BundleMoved, RoleMoved, SyncWanted
from broker.wire.facts import StandbyNominated, StandbyReady, StandbyRemoved
from broker.wire.replica import ReportReady
from broker.wire.standby import NominateStandby, RemoveStandby, SyncNow


def nominate_standby(
    state: BrokerState, batch: Batch, caller: Caller, request: NominateStandby
) -> Ack:
    """Offer a member the key; it fetches it by itself.

    Raises:
        NotFoundError: No active member of that name.
        ConflictError: It holds the key already.
    """
    state.mesh()
    state.issuer()
    state.full_powers(caller.now_ms)
    member = _active(state, request.host)
    if member.role in {"primary", "standby"}:
        raise ConflictError(f"{member.host} is a {member.role} already")
    if not member.nominated:
        batch.append(StandbyNominated(member.member_id, member.host), request.operator)
    return Ack()


def remove_standby(state: BrokerState, batch: Batch, caller: Caller, request: RemoveStandby) -> Ack:
    """Take a nomination or a standby's role back.

    Raises:
        ConflictError: It is neither, or it is this primary itself.
    """
    state.mesh()
    state.full_powers(caller.now_ms)
    member = _active(state, request.host)
    if member.host == state.host:
        raise ConflictError(
            "the primary cannot remove itself", hint="hand over first: certmesh standby step-down"
        )
    if member.role != "standby" and not member.nominated:
        raise ConflictError(f"{member.host} is no standby", hint="certmesh standby list")
    fact = StandbyRemoved(member.member_id, member.host, f"removed by {request.operator}")
    batch.append(fact, request.operator)
    state.claims.pop(member.host, None)
    batch.publish(BundleMoved(state.ledger.bundle_sequence()))
    return Ack()


def report_ready(state: BrokerState, batch: Batch, caller: Caller, request: ReportReady) -> Ack:
    """Admit a nominated member that has the key; from now on it may take over."""
    state.mesh()
    member = authorize_member(state, batch, caller, request.peer)
    if member.role == "standby":
        return Ack()
    state.full_powers(caller.now_ms)
    if not member.nominated:
        raise ConflictError(f"{member.host} was not nominated")
    batch.append(StandbyReady(member.member_id, member.host), member.host)
    batch.publish(BundleMoved(state.ledger.bundle_sequence()))
    batch.publish(RoleMoved(state.role, state.term))
    return Ack()


def sync_now(state: BrokerState, batch: Batch, _caller: Caller, _request: SyncNow) -> Ack:
    """Wake the roster-sync worker."""
    if state.role == "primary":
        raise ConflictError("the primary syncs from nobody")
    batch.publish(SyncWanted())
    return Ack()


def _active(state: BrokerState, host: str) -> MemberRow:
    member = state.ledger.member_by_host(host)
    if member is None:
        raise NotFoundError(f"no active member {host[:64]!r}", hint="certmesh member list")
    return member
