"""Renewal workers on other machines: let them in, put them out, take their key.

Granting and ending merge after a fork, so a caretaker may do either. A grant takes one key, once,
over mutual TLS; whoever wants another key asks a person again.
"""

from collections.abc import Iterable

from broker.errors import ForbiddenError, KeyRejectedError, NotFoundError, UnavailableError
from broker.ledger.rows import MemberRow, WorkerRow
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.peers import authorize_member
from broker.shell.state import BrokerState
from broker.wire.facts import ActionRefused, WorkerBound, WorkerEnrolled, WorkerRevoked
from broker.wire.remote import (
    BindWorker,
    EnrollWorker,
    ListRemoteWorkers,
    RemoteWorkersView,
    RemoteWorkerView,
    RevokeWorker,
    WorkerDoor,
)

GRANT_BYTES = 8
LISTED_MAX = 512
REFUSAL_EVERY_MS = 3_600_000
"""A worker that waits for its grant asks every few seconds; that is news once an hour."""


def enroll_worker(
    state: BrokerState, batch: Batch, caller: Caller, request: EnrollWorker
) -> RemoteWorkerView:
    """Let renewal workers on a member's machine work here; its earlier grants end.

    Raises:
        NotFoundError: No active member of that name.
    """
    state.mesh()
    member = state.ledger.member_by_host(request.host)
    if member is None:
        raise NotFoundError(f"no active member {request.host!r}", hint="certmesh member list")
    if request.dry_run:
        return RemoteWorkerView(
            grant_id="",
            host=member.host,
            member_id=member.member_id,
            state="enrolled",
            public_key="",
            enrolled_at=caller.now,
            enrolled_by=request.operator,
        )
    _end(batch, state.ledger.workers_of(member.member_id), request.operator)
    grant_id = state.draw(GRANT_BYTES).hex()
    batch.append(WorkerEnrolled(grant_id, member.member_id, member.host), request.operator)
    _log_after(batch, EventName.WORKER_ENROLLED, member.host, request.operator)
    (row, *_) = state.ledger.workers_of(member.member_id)
    return _view(state, row)


def revoke_worker(
    state: BrokerState, batch: Batch, _caller: Caller, request: RevokeWorker
) -> RemoteWorkerView:
    """End what a machine was granted; its workers are refused at their next request.

    Raises:
        NotFoundError: Nothing is granted to a machine of that name.
    """
    state.mesh()
    member = state.ledger.member_by_host(request.host)
    grants = state.ledger.workers_of(member.member_id) if member is not None else []
    if not grants:
        raise NotFoundError(
            f"no renewal worker on {request.host!r} may work here", hint="certmesh worker list"
        )
    if not request.dry_run:
        _end(batch, grants, request.operator)
        _log_after(batch, EventName.WORKER_REVOKED, grants[0].host, request.operator)
    return _view(state, grants[0], over=True)


def list_remote_workers(
    state: BrokerState, _batch: Batch, _caller: Caller, _request: ListRemoteWorkers
) -> RemoteWorkersView:
    """Return the newest grants, those of the past included."""
    state.known_mesh()
    rows = state.ledger.workers(LISTED_MAX)
    views = tuple(_view(state, row) for row in rows)
    return RemoteWorkersView(workers=views, listen=state.remote_port.listen)


def bind_worker(
    state: BrokerState, batch: Batch, caller: Caller, request: BindWorker
) -> WorkerDoor:
    """Take the key of a machine's renewal workers, and tell them where to come.

    Raises:
        NotPrimaryError: This node does not serve; the hint names who does.
        RevokedError: The machine was put out of the mesh.
        ForbiddenError: Nobody let this machine work here, or with another key.
        KeyRejectedError: The key was used under another grant.
        UnavailableError: This broker listens for no workers.
    """
    state.mesh()
    member = authorize_member(state, batch, caller, request.peer)
    try:
        grant = _grant_for(state, member, request.public_key)
    except (ForbiddenError, KeyRejectedError) as refusal:
        key = ("worker", member.member_id, refusal.code)
        if state.refusals.passes(key, caller.now_ms, REFUSAL_EVERY_MS):
            log(EventName.WORKER_REFUSED, host=member.host, detail=refusal.detail)
            batch.append(ActionRefused("bind-worker", member.host, refusal.code), member.host)
        raise
    door = state.remote_port
    if not door.port:
        raise UnavailableError(
            f"{state.host} listens for no renewal workers of other machines"
            + (f": {door.trouble}" if door.trouble else ""),
            hint=f"on {state.host}: set workers under [listen], such as 0.0.0.0:7645, and restart",
            retry_after_ms=5000,
        )
    if not grant.public_key:
        batch.append(WorkerBound(grant.grant_id, grant.member_id, request.public_key), member.host)
        _log_after(batch, EventName.WORKER_BOUND, member.host, member.host)
    return WorkerDoor(port=door.port, server_key=door.server_key, grant_id=grant.grant_id)


def _grant_for(state: BrokerState, member: MemberRow, public_key: str) -> WorkerRow:
    """Return the living grant that has this key, or may have it."""
    grants = state.ledger.workers_of(member.member_id)
    bound = next((row for row in grants if row.public_key == public_key), None)
    if bound is not None:
        return bound
    free = next((row for row in grants if not row.public_key), None)
    if free is not None and not state.ledger.worker_key_used(public_key):
        return free
    enroll = f"on the CA: certmesh worker enroll {member.host}"
    if free is not None:
        raise KeyRejectedError(
            f"this key of {member.host} was used before, under another grant",
            hint="a worker makes itself another one",
        )
    if grants:
        raise ForbiddenError(f"{member.host} was let in with another key", hint=enroll)
    raise ForbiddenError(f"nobody let renewal workers of {member.host} in", hint=enroll)


def _end(batch: Batch, grants: Iterable[WorkerRow], operator: str) -> None:
    """End grants; what their workers hold goes back with the next look at who is granted."""
    for row in grants:
        batch.append(WorkerRevoked(row.grant_id, row.member_id, row.host), operator)


def _view(state: BrokerState, row: WorkerRow, *, over: bool = False) -> RemoteWorkerView:
    bound = "bound" if row.public_key else "enrolled"
    living = not (row.over or over)
    return RemoteWorkerView(
        grant_id=row.grant_id,
        host=row.host,
        member_id=row.member_id,
        state=bound if living else "revoked",
        public_key=row.public_key,
        enrolled_at=row.enrolled_at,
        enrolled_by=row.enrolled_by,
        connected=state.workers.count(row.public_key) if living and row.public_key else 0,
        renewals=state.remote_renewals[row.grant_id],
    )


def _log_after(batch: Batch, event: EventName, host: str, actor: str) -> None:
    batch.after_commit.append(lambda: log(event, host=host, actor=actor))
