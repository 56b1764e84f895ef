"""Backups of this key holder: when they are made, signed, named, remembered and thrown away.

Three steps: a program of its own writes the file and proves that it opens; the loop signs its
header, if the CA is open at that moment; a thread puts it into place. Only a file that got that far
lets older ones go. One backup is under way at a time.
"""

import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from broker.clock import boottime_ms
from broker.errors import (
    BusyError,
    ErrorCode,
    InternalError,
    MeshError,
    StorageError,
    error_classes,
)
from broker.pki.container import (
    SignedHeader,
    read_header,
    signed_part,
    verify_header,
)
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.shell.backup_file import put_into_place, read_end, write_trailer
from broker.shell.backup_make import BackupMade, BackupWish
from broker.shell.batch import Batch
from broker.shell.state import BrokerState
from broker.units import Millis, UnixSeconds
from broker.wire.backup import BackupLine
from broker.wire.base import Body
from broker.wire.codec import decode_body, encode_body
from broker.wire.facts import BackupCreated
from broker.wire.ids import Text

SUFFIX = ".cmbackup"
LOCAL_BACKUP = "backup"
SETTLE_MS = 300_000
"""Not right after a start: the node has better things to do, and may be stopped again."""
AGAIN_MS = 600_000
"""After a failure."""
PROGRAM_S = 1800
"""A ledger of a million rows takes a few minutes."""
DAY_S = 86_400


class LastBackup(Body, frozen=True):
    """The newest success, kept in the ledger's local part."""

    at: UnixSeconds
    path: Text
    digest: Text


class Stored(NamedTuple):
    """A backup that has its name, and the older ones it let go."""

    line: BackupLine
    removed: tuple[str, ...]


Done = Callable[[Batch, Stored | MeshError], None]


def last_backup_at(state: BrokerState) -> UnixSeconds | None:
    """Return when the newest backup of this node was made, None when there was none."""
    last = _last(state)
    return last.at if last is not None else None


def next_backup_at(state: BrokerState) -> UnixSeconds | None:
    """Return when the next one is due, None when never; a moment in the past is now."""
    every_s, last = state.settings.backup.every.s, last_backup_at(state)
    if not every_s or not _may_back_up(state):
        return None
    return UnixSeconds((last or 0) + every_s)


def backup_directory(state: BrokerState) -> Path:
    """Return where backups go when nobody says."""
    chosen = state.settings.backup.directory
    return Path(chosen) if chosen else state.paths.data / "backup"


def backup_problem(state: BrokerState, now: UnixSeconds) -> str:
    """Return what a person should know of the backups of this node, or nothing."""
    every_s = state.settings.backup.every.s
    if not every_s or not _may_back_up(state):
        return ""
    if state.backups.failure:
        return f"the last backup failed: {state.backups.failure}"
    last = last_backup_at(state)
    if last is not None and now - last > 2 * every_s + DAY_S // 24:
        return f"the newest backup of this node is {(now - last) // 3600} hours old"
    return ""


def tick_backups(state: BrokerState, now_ms: Millis, now: UnixSeconds) -> None:
    """Begin a backup when one is due."""
    every = state.settings.backup.every
    due_at, book = next_backup_at(state), state.backups
    if due_at is None or book.running or now_ms < book.not_before_ms:
        return
    last = last_backup_at(state) or UnixSeconds(0)
    # A wall clock that went back must not silence backups until it has caught up.
    late = now >= due_at or last > now + DAY_S
    if late and now_ms - state.started_ms >= min(SETTLE_MS, every.ms):
        begin_backup(state, None, "broker", now, lambda _batch, _outcome: None)


def begin_backup(
    state: BrokerState, target: Path | None, actor: str, now: UnixSeconds, done: Done
) -> None:
    """Start a backup; `done` is told in the loop what became of it.

    Args:
        state: The broker.
        target: Where; None for a new name in the directory of the settings, where older ones go.
        actor: Who wants it.
        now: Wall time, for the name.
        done: Called with the drain in which it ended.

    Raises:
        BusyError: One is under way.
    """
    if state.backups.running:
        raise BusyError("a backup is being made already", retry_after_ms=5_000)
    state.backups.running = True
    final = target or backup_directory(state) / _name(state, now)
    keep = state.settings.backup.keep if target is None else 0
    make = state.backups.make or partial(_run_program, state.paths)
    state.offloop.aside(lambda: make(final), partial(_sign, state, _Wish(final, keep, actor, done)))


class _Wish(NamedTuple):
    final: Path
    keep: int
    actor: str
    done: Done


def _sign(state: BrokerState, wish: _Wish, batch: Batch, outcome: object) -> None:
    """Sign what was written, if the CA is open now, and have it put into place."""
    if not isinstance(outcome, BackupMade):
        _failed(state, wish, batch, outcome)
        return
    issuer = state.keys.issuer
    signature = issuer.sign(signed_part(outcome.header)) if issuer is not None else b""
    signed = SignedHeader(outcome.header, signature)
    state.offloop.aside(
        lambda: _store(Path(outcome.staged), wish, signed), partial(_settle, state, wish)
    )


def _settle(state: BrokerState, wish: _Wish, batch: Batch, outcome: object) -> None:
    if not isinstance(outcome, Stored):
        _failed(state, wish, batch, outcome)
        return
    state.backups.running, state.backups.failure = False, ""
    line = outcome.line
    log(EventName.BACKUP_CREATED, path=line.path, bytes=line.size_bytes, digest=line.digest)
    last = LastBackup(line.created_at, line.path, line.digest)
    batch.keep(LOCAL_BACKUP, encode_body(last))
    if state.serves:
        batch.append(BackupCreated(state.host, line.name, line.digest), wish.actor)
    wish.done(batch, outcome)


def _failed(state: BrokerState, wish: _Wish, batch: Batch, outcome: object) -> None:
    error = outcome if isinstance(outcome, MeshError) else InternalError(f"it failed: {outcome!r}")
    state.backups.running, state.backups.failure = False, error.detail
    state.backups.not_before_ms = boottime_ms() + AGAIN_MS
    log(EventName.BACKUP_FAILED, path=str(wish.final), detail=error.detail, hint=error.hint)
    wish.done(batch, error)


def _store(staged: Path, wish: _Wish, signed: SignedHeader) -> Stored:
    """Put the signature in, verify the whole once more, name the file, let older ones go."""
    header = read_header(signed.header)
    write_trailer(staged, header, signed)
    if signed.signature:
        verify_header(read_end(staged)[0], header.pin)
    put_into_place(staged, wish.final)
    return Stored(line_of(wish.final), _prune(wish.final, wish.keep))


def _prune(newest: Path, keep: int) -> tuple[str, ...]:
    """Remove all but the newest `keep` of this node's own backups; 0 keeps all."""
    if not keep:
        return ()
    series, own = newest.name.rpartition("-")[0], _owner(newest)
    # Several nodes may share the directory, and one's name may begin with another's.
    found = [path for path in newest.parent.glob(f"{series}-*{SUFFIX}") if _owner(path) == own]
    old = [path for path in sorted(found, reverse=True)[keep:] if path != newest]
    for path in old:
        path.unlink(missing_ok=True)
    return tuple(path.name for path in old)


def _owner(path: Path) -> tuple[str, str] | None:
    """Return mesh and host of a backup, None of a file that does not say."""
    try:
        header = read_header(read_end(path)[0].header)
    except MeshError:
        return None
    return (header.mesh_id, header.host)


def line_of(path: Path) -> BackupLine:
    """Return a backup as it is listed; what is wrong with it, as far as its end shows, included."""
    name, size = path.name, path.stat().st_size
    try:
        signed, content = read_end(path)
        header = read_header(signed.header)
    except MeshError as error:
        return BackupLine(name, str(path), size, UnixSeconds(0), 0, 0, "", error.detail)
    problem = "" if content == header.body_bytes else "the content is cut off"
    try:
        verify_header(signed)
    except MeshError as error:
        problem = problem or error.detail
    return BackupLine(
        name=name,
        path=str(path),
        size_bytes=size,
        created_at=header.created_at,
        term=header.term,
        sequence=header.sequence,
        digest=header.digest,
        problem=problem,
    )


def lines_in(directory: Path) -> tuple[BackupLine, ...]:
    """Return the backups in a directory, newest first."""
    found = (line_of(path) for path in directory.glob(f"*{SUFFIX}") if path.is_file())
    return tuple(sorted(found, key=lambda line: (line.created_at, line.name), reverse=True))


def _may_back_up(state: BrokerState) -> bool:
    mesh = state.mesh_row()
    whole = state.keys.vault is not None and state.role in {"primary", "standby"}
    held = state.restored is not None and state.restored.held
    return whole and not held and mesh is not None and bool(mesh.recovery_key)


def _name(state: BrokerState, now: UnixSeconds) -> str:
    mesh = state.membership.mesh_name if state.membership else ""
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    return f"certmesh-{mesh}-{state.host}-{moment}{SUFFIX}"


def _last(state: BrokerState) -> LastBackup | None:
    raw = state.ledger.local_get(LOCAL_BACKUP)
    return decode_body(raw, LastBackup) if raw else None


def _run_program(paths: Paths, target: Path) -> BackupMade:
    """Have a program of its own write the file; runs in a thread.

    Raises:
        MeshError: Its refusal.
    """
    try:
        done = subprocess.run(  # noqa: S603 (our own interpreter and module)
            [sys.executable, "-m", "broker", "backup", str(paths.settings)],
            input=msgspec.json.encode(BackupWish(str(target))),
            capture_output=True,
            check=False,
            timeout=PROGRAM_S,
        )
    except subprocess.TimeoutExpired:
        # A share that hangs must not keep every later backup waiting for this one.
        raise StorageError(
            f"writing {target} took over {PROGRAM_S // 60} minutes and was broken off",
            hint="look at that directory: a network share that hangs, or a full disk",
        ) from None
    try:
        if done.returncode == 0:
            return msgspec.json.decode(done.stdout, type=BackupMade)
        refusal = msgspec.json.decode(done.stdout, type=dict[str, str])
        kind = error_classes()[ErrorCode(refusal["code"])]
    except (msgspec.MsgspecError, KeyError, ValueError):
        said = done.stderr.decode(errors="replace")[-500:]
        raise InternalError(f"the backup program ended with {done.returncode}: {said}") from None
    raise kind(refusal["detail"], hint=refusal["hint"])
