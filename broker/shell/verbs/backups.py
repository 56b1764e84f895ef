"""Backups on demand, and the questions of a node that was restored from one."""

from pathlib import Path

from broker.errors import (
    ConflictError,
    InternalError,
    MalformedMessageError,
    MeshError,
    NoMeshError,
    NotFoundError,
    StorageError,
)
from broker.pki.bundle import verify_bundle
from broker.shell.backup import (
    Stored,
    backup_directory,
    begin_backup,
    lines_in,
    next_backup_at,
)
from broker.shell.batch import Batch
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.restored import note_answer, note_silence, sources_now
from broker.shell.state import BrokerState
from broker.shell.trust import anchors_of
from broker.wire.backup import (
    BackupsView,
    BackupView,
    CollectPlan,
    CollectSource,
    ListBackups,
    NoteCollected,
    PlanCollect,
    TakeBackup,
)
from broker.wire.codec import decode_body, encode, fault_of
from broker.wire.control import Ack
from broker.wire.messages import Answer
from broker.wire.roster import SignedBundle


def take_backup(state: BrokerState, _batch: Batch, caller: Caller, request: TakeBackup) -> Deferred:
    """Make a backup now; answered when it was read back and has its name.

    Raises:
        NotFoundError: This node holds no CA.
        ConflictError: The mesh has no recovery kit.
        MalformedMessageError: The path is not a whole one.
        BusyError: One is being made.
    """
    if caller.request_id not in state.waiting:
        _check(state)
        target = _target(request.path)

        def done(batch: Batch, outcome: Stored | MeshError) -> None:
            if isinstance(outcome, MeshError):
                state.resolve(caller.request_id, fault_of(outcome))
                return
            reply = BackupView(outcome.line, outcome.removed)
            # The link repeats a request whose answer was lost; one backup is enough.
            batch.remember(caller.request_id, encode(Answer(caller.request_id, reply))[1])
            batch.after_commit.append(lambda: state.resolve(caller.request_id, reply))
            void = StorageError("the backup is on disk, but could not be written down")
            batch.on_void.append(lambda: state.resolve(caller.request_id, fault_of(void)))

        begin_backup(state, target, request.operator, caller.now, done)
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    return DEFERRED


def list_backups(
    state: BrokerState, _batch: Batch, caller: Caller, _request: ListBackups
) -> Deferred:
    """Return the backups in the directory of the settings; read off the loop."""
    directory, every_s = backup_directory(state), state.settings.backup.every.s
    next_at = next_backup_at(state)

    def settle(_batch: Batch, outcome: object) -> None:
        if isinstance(outcome, tuple):
            reply = BackupsView(outcome, str(directory), every_s, next_at)
            state.resolve(caller.request_id, reply)
            return
        error = outcome if isinstance(outcome, MeshError) else InternalError(f"{outcome!r}")
        state.resolve(caller.request_id, fault_of(error))

    if caller.request_id not in state.waiting:
        state.offloop.aside(lambda: lines_in(directory), settle)
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    return DEFERRED


def plan_collect(
    state: BrokerState, _batch: Batch, caller: Caller, _request: PlanCollect
) -> CollectPlan:
    """Return whom to ask for their newest bundle now."""
    return CollectPlan(
        tuple(
            CollectSource(doors.host, doors.addresses, doors.enroll_port, doors.server_name)
            for doors in sources_now(state, caller.now_ms)
        )
    )


def note_collected(
    state: BrokerState, _batch: Batch, caller: Caller, request: NoteCollected
) -> Ack:
    """Verify what a member had against the pin; what does not verify counts as no answer.

    Raises:
        BundleRejectedError: The detail says which check failed.
    """
    membership = state.membership
    if membership is None:
        raise NoMeshError("this node belongs to no mesh")
    if not request.bundle:
        note_silence(state, request.host)
        return Ack()
    anchors = anchors_of(membership)
    try:
        body = verify_bundle(
            decode_body(request.bundle, SignedBundle),
            root=anchors.pinned,
            pin=membership.pin,
            mesh_id=membership.mesh_id,
            now=caller.now,
            others=anchors.others,
        )
    except MeshError:
        note_silence(state, request.host)
        raise
    note_answer(state, request.host, body, request.bundle)
    return Ack()


def _target(path: str) -> Path | None:
    if not path:
        return None
    target = Path(path)
    if not target.is_absolute() or "\0" in path:
        raise MalformedMessageError(
            "the path of a backup begins with /: where this node runs is nobody's business",
            hint="name the whole path, or none for the backup directory",
        )
    return target


def _check(state: BrokerState) -> None:
    if state.keys.vault is None:
        if state.membership is None:
            raise NoMeshError("this node belongs to no mesh", hint="certmesh init NAME")
        raise NotFoundError(
            f"{state.host} holds no CA key, so there is nothing to back up",
            hint="run this on the primary or on a standby",
        )
    mesh = state.known_mesh()
    if not mesh.recovery_key:
        raise ConflictError(
            "this mesh was made without a recovery kit, so nothing could open a backup",
            hint="copy the home directory of the stopped node instead",
        )
