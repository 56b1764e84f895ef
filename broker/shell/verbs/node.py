"""This node in one answer: role gate, status, process table."""

import os

from broker.core.liveness import Worker
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.lines import Lines, own_line
from broker.shell.outlook import outage_view
from broker.shell.peers import own_domain, primary_doors
from broker.shell.state import BrokerState
from broker.shell.verbs.continuity import standby_lines
from broker.shell.warnings import warnings_of
from broker.units import Millis
from broker.wire.node import (
    GetNode,
    GetStatus,
    ListWorkers,
    MemberLine,
    MeshView,
    NodeView,
    StatusView,
    WorkersView,
    WorkerView,
)
from broker.wire.supervision import ProcessLine

STATUS_MEMBERS_MAX = 500


def get_node(state: BrokerState, _batch: Batch, caller: Caller, _request: GetNode) -> NodeView:
    """Return who this node is right now."""
    powers = _powers(state, caller.now_ms)
    return state.cached_view(powers, lambda: _compose(state, powers))


def _powers(state: BrokerState, now_ms: Millis) -> str:
    if state.election is None or state.role != "primary":
        return "full"
    return state.election.powers(state.surroundings(), now_ms)


def _compose(state: BrokerState, powers: str) -> NodeView:
    membership, head = state.membership, state.ledger.head
    bundle = state.follow.bundle
    return NodeView(
        host=state.host,
        role=state.role,
        ca=state.keys.state,
        term=state.term,
        sequence=head.sequence,
        bundle_sequence=bundle.bundle_sequence if bundle else 0,
        mesh=_mesh_view(state),
        member_id=membership.member_id if membership else "",
        key_holders=tuple(state.key_holder_doors().values()),
        bundle_term=bundle.head.term if bundle else 0,
        phase=state.election.phase if state.election else "",
        powers=powers,
    )


def get_status(state: BrokerState, batch: Batch, caller: Caller, request: GetStatus) -> StatusView:
    """Return mesh and node in one screen."""
    mesh = state.mesh_row() if state.role in {"primary", "standby"} else None
    own = own_line(state, caller.now)
    lines: tuple[MemberLine, ...] = (own,) if own is not None else ()
    count, survives = len(lines), own.survives_until if own else None
    outage = None
    if mesh is not None:
        rows = state.ledger.members_page("", min(request.limit, STATUS_MEMBERS_MAX))
        each = Lines(state, caller.now)
        lines = tuple(each.of(row, held) for row, held in rows)
        count = state.ledger.member_count()
        outage = outage_view(state, mesh, caller.now)
        survives = outage.survives_until
    pending = state.ledger.approvals_pending() if mesh is not None else 0
    return StatusView(
        node=get_node(state, batch, caller, GetNode()),
        enrollment_open=bool(mesh and mesh.enrollment_open),
        approvals_pending=pending,
        members=lines,
        member_count=count,
        warnings=warnings_of(state, outage, caller),
        survives_until=survives,
        own=own,
        now=caller.now,
        standbys=standby_lines(state, caller) if mesh is not None else (),
        outage=outage,
    )


def list_workers(
    state: BrokerState, _batch: Batch, caller: Caller, _request: ListWorkers
) -> WorkersView:
    """Return the process table: what introduced itself, and what supervisord knows besides."""
    processes = dict(state.follow.processes)
    views = []
    for worker in state.workers.everyone():
        if worker.liveness == "left" and worker.instance not in processes:
            continue
        views.append(_worker_view(worker, processes.pop(worker.instance, None), caller))
    views.extend(_absent_view(line) for line in processes.values() if line.program != "broker")
    return WorkersView(
        workers=tuple(sorted(views, key=lambda view: view.instance)),
        broker_pid=os.getpid(),
        broker_uptime_ms=caller.now_ms - state.started_ms,
        broker=state.follow.processes.get("broker"),
    )


def _mesh_view(state: BrokerState) -> MeshView | None:
    membership = state.membership
    if membership is None:
        return None
    mesh = state.mesh_row()
    return MeshView(
        mesh_id=membership.mesh_id,
        name=membership.mesh_name,
        domain=mesh.domain if mesh else own_domain(membership),
        pin=membership.pin,
        term=state.term,
        primary=primary_doors(state),
    )


def _worker_view(worker: Worker, line: ProcessLine | None, caller: Caller) -> WorkerView:
    beat = worker.beat
    return WorkerView(
        instance=worker.instance,
        service=worker.service.value,
        pid=0 if worker.key else worker.pid,  # one of another machine means nothing here
        liveness=worker.liveness,
        supervisor=line.state if line else "",
        restarts=line.restarts if line else 0,
        state=beat.state,
        last_success_at=beat.last_success_at,
        last_error=beat.last_error,
        next_run_ms=beat.next_run_ms,
        silent_ms=caller.now_ms - worker.seen_ms,
        uptime_ms=line.uptime_ms if line else 0,
        last_exit=line.last_exit if line else "",
        last_exit_at=line.last_exit_at if line else None,
        next_start_ms=line.next_start_ms if line else None,
        ends=line.ends if line else 0,
    )


def _absent_view(line: ProcessLine) -> WorkerView:
    return WorkerView(
        instance=line.program,
        service=line.program,
        pid=line.pid,
        liveness="absent",
        supervisor=line.state,
        restarts=line.restarts,
        state="",
        last_success_at=None,
        last_error="",
        next_run_ms=None,
        silent_ms=0,
        uptime_ms=line.uptime_ms,
        last_exit=line.last_exit,
        last_exit_at=line.last_exit_at,
        next_start_ms=line.next_start_ms,
        ends=line.ends,
    )
