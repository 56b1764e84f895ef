"""Setting a node's state aside when it leaves: kept for a person to look at, useless to a thief.

Order rule: the note that leaving has begun comes first and `membership.json` goes last, so a kill
at any instant leaves a node that either still belongs to its mesh, or can finish leaving.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from broker.errors import ConflictError, MalformedMessageError, StorageError
from broker.runtime.files import FILE_MODE, fsync_directory, private_directory, write_atomic
from broker.runtime.paths import Paths
from broker.wire.plain import decode_json

NOTE = "leaving.json"
OLDER_LEDGERS = "ledger.db.v*"
"""Copies from before an upgrade."""
PRIVATE = frozenset({"key.pem", "privkey.pem", "combined.pem"})
"""Files below `certs` that hold a private key."""
LEFT_OVERS = (
    "certs",
    "ledger.db",
    "ledger.db-wal",
    "ledger.db-shm",
    "ticket.json",
    "ca.new",
    "ca.old",
    "ca.removed",
    "ca.kept",
    "credentials",
    "trust",
)


class Begun(msgspec.Struct, frozen=True):
    """A leaving that has begun: whether the CA knows, and where the state goes."""

    told: bool
    place: str


def begun(paths: Paths) -> Begun | None:
    """Return the leaving that was interrupted, None when there is none.

    One whose membership is aside already was over but for its note: what is here now is a later
    membership, and nobody said that it should end.
    """
    try:
        note = decode_json((paths.data / NOTE).read_bytes(), Begun)
    except (OSError, MalformedMessageError):
        return None
    over = paths.data / note.place / paths.membership.name
    return None if os.path.lexists(over) else note


def begin(paths: Paths, day: str, *, told: bool) -> Begun:
    """Note durably that this node leaves; from here on only forward."""
    taken = {entry.name for entry in paths.data.glob(f"left-{day}*")}
    names = (f"left-{day}{suffix}" for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
    note = Begun(told, next(name for name in names if name not in taken))
    write_atomic(paths.data / NOTE, msgspec.json.encode(note))
    return note


def set_aside(paths: Paths, note: Begun) -> Path:
    """Delete the private keys, move what is left, and return where it is now.

    Raises:
        ConflictError: A broker still runs on this state.
        StorageError: The disk refused; the same command goes on from there.
    """
    place = paths.data / note.place
    try:
        with _no_broker(paths.lock):
            _delete_keys(paths.certificates)
            private_directory(place)
            older = (copy.name for copy in paths.data.glob(OLDER_LEDGERS))
            for name in (*LEFT_OVERS, *older, paths.membership.name):
                _move(paths.data / name, place / name)
            (paths.data / NOTE).unlink(missing_ok=True)
            fsync_directory(paths.data)
    except OSError as error:
        raise StorageError(
            f"cannot set the state in {paths.data} aside: {error}", hint="run the command again"
        ) from None
    return place


def _delete_keys(certificates: Path) -> None:
    # Links are not followed: `live` and a name from before a renaming lead to the same versions.
    for directory, _, files in os.walk(certificates):
        for name in PRIVATE.intersection(files):
            (Path(directory) / name).unlink()
        fsync_directory(Path(directory))


def _move(source: Path, target: Path) -> None:
    if os.path.lexists(source):
        source.rename(target)
        fsync_directory(target.parent)
        fsync_directory(source.parent)


@contextlib.contextmanager
def _no_broker(lock: Path) -> Iterator[None]:
    """Hold the broker's lock, so that none starts on state that is moving away."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(lock, flags, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise ConflictError(
            "a broker still runs on this node's state", hint="stop it: certmesh down"
        ) from None
    finally:
        os.close(descriptor)
