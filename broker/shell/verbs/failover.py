"""What to announce, whom to probe, what was seen. Nothing here changes a role."""

from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.peers import (
    authorize_key_holder,
    authorize_member,
    known_key_holders,
    own_endpoint,
)
from broker.shell.state import BrokerState
from broker.wire.control import Ack
from broker.wire.failover import (
    Announcement,
    FailoverPlan,
    Hello,
    HelloAnswer,
    ListPeers,
    PeersView,
    PlanFailover,
    ReportSightings,
)

HINTS_MAX = 64


def plan_failover(
    state: BrokerState, _batch: Batch, _caller: Caller, _request: PlanFailover
) -> FailoverPlan:
    """Return the announcement of an unlocked primary with a certificate, and probe targets."""
    membership = state.membership
    targets = tuple(known_key_holders(state).values()) if membership else ()
    return FailoverPlan(
        announce=_announcement(state),
        targets=targets if state.own.present else (),
        discovery=state.settings.discovery.mdns,
        pin=membership.pin if membership else "",
        host=state.host,
    )


def hello(state: BrokerState, batch: Batch, caller: Caller, request: Hello) -> HelloAnswer:
    """Answer a probe with this node's own claim."""
    if state.role == "primary":
        authorize_member(state, batch, caller, request.peer)
    else:
        authorize_key_holder(state, batch, caller, request.peer)
    term = max(state.ledger.term, state.follow.term)
    return HelloAnswer(
        host=state.host,
        role=state.role,
        term=term,
        highest_term=max(term, request.term),
        sequence=state.ledger.head.sequence,
        promotable=False,
        reason="" if state.role == "primary" else "not a standby",
    )


def report_sightings(
    state: BrokerState, _batch: Batch, _caller: Caller, request: ReportSightings
) -> Ack:
    """Keep the newest round; only verified claims are evidence, hints are for people."""
    state.follow.sightings = request.sightings[:HINTS_MAX]
    state.follow.hints = request.hints[:HINTS_MAX]
    return Ack()


def list_peers(
    state: BrokerState, _batch: Batch, _caller: Caller, _request: ListPeers
) -> PeersView:
    """Return what the failover worker last saw."""
    return PeersView(state.follow.sightings, state.follow.hints)


def _announcement(state: BrokerState) -> Announcement | None:
    mesh = state.mesh_row()
    ready = state.role == "primary" and state.keys.issuer is not None and state.own.present
    if mesh is None or not ready:
        return None
    doors = own_endpoint(state, mesh.domain)
    return Announcement(
        instance=f"certmesh-ca-{state.host}",
        port=doors.enroll_port,
        addresses=doors.addresses,
        server=f"{state.host.split('.')[0]}.local.",
        txt={
            "role": "primary",
            "fingerprint": mesh.pin,
            "profile": "approval" if mesh.approval else "open",
            "auth": "invite,totp" if mesh.enrollment_open else "invite",
            "term": str(state.ledger.term),
        },
    )
