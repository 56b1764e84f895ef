"""The ledger as an older release left it, kept beside the new one.

Order rule: the copy is whole, synced and under its name before the first statement of an upgrade.
An upgrade that fails or is killed is tried again at the next start, so a copy of the very same
journal is not made twice, and only the newest few are kept: a start that fails again and again
must not fill the disk.
"""

import contextlib
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from broker.clock import wall_s
from broker.errors import StorageError
from broker.ledger import journal

KEPT_MAX = 2
"""Copies of one version; the older ones hold less of the same journal."""

FULL_HINT = "make room for one more copy of the ledger below {place}, then start again"


def keep_copy(path: Path, connection: sqlite3.Connection, version: int) -> Path:
    """Return a copy of the ledger at `path`, which has this version, made if there is none yet.

    Its name is that of the ledger with the version and the moment: `ledger.db.v4-20300101T000000Z`.

    Raises:
        StorageError: The directory does not take it; nothing was changed.
        sqlite3.Error: The ledger cannot be read.
    """
    present = journal.read_head(connection)
    for copy in reversed(copies(path, version)):
        with contextlib.suppress(sqlite3.Error), closing(_opened(copy, "ro")) as kept:
            if journal.read_head(kept) == present:
                return copy
    moment = datetime.fromtimestamp(wall_s(), UTC).strftime("%Y%m%dT%H%M%SZ")
    copy = path.with_name(f"{path.name}.v{version}-{moment}")
    staged = path.with_name(f"{path.name}.v{version}.part")
    try:
        _copy(connection, staged)
        staged.rename(copy)
        _sync(path.parent)
    except (OSError, sqlite3.OperationalError) as error:
        with contextlib.suppress(OSError):
            staged.unlink(missing_ok=True)
        raise StorageError(
            f"{path} is of an older release and no copy of it can be made: {error}; "
            "it was left as it is",
            hint=FULL_HINT.format(place=path.parent),
        ) from error
    _forget(path, version, copy)
    return copy


def copies(path: Path, version: int | None = None) -> tuple[Path, ...]:
    """Return the copies of the ledger at `path`, the oldest first; all versions without one."""
    wanted = f"{path.name}.v{'*' if version is None else version}-*"
    return tuple(sorted(path.parent.glob(wanted)))


def _copy(connection: sqlite3.Connection, staged: Path) -> None:
    staged.unlink(missing_ok=True)
    os.close(os.open(staged, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    with closing(_opened(staged, "rw")) as target:
        connection.backup(target)
        # One file, with nothing beside it that somebody could forget to bring along.
        target.execute("PRAGMA journal_mode = DELETE")
    _sync(staged)


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    place = f"file:{quote(os.fsencode(path))}?mode={mode}"
    return sqlite3.connect(place, uri=True, isolation_level=None)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget(path: Path, version: int, made: Path) -> None:
    # The names go by a clock that may have jumped back: the copy just made is the newest one.
    others = [copy for copy in copies(path, version) if copy != made]
    for old in others[: 1 - KEPT_MAX]:
        with contextlib.suppress(OSError):
            old.unlink()
