"""Copies of a node's ledger and CA directory, made beside a broker that goes on writing.

They live in a private directory that its maker removes, whatever happens.
"""

import os
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from urllib.parse import quote

from broker.errors import LedgerDamagedError, NoMeshError, StorageError
from broker.runtime.exits import Exit
from broker.runtime.files import FILE_MODE, private_directory
from broker.shell.vault import OLD

SPARE_BYTES = 16 * 1024 * 1024
"""Left over after the copy: its journal grows by some rows, and others need room too."""
BUSY_TIMEOUT_S = 5.0
STOPS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def private_place() -> Iterator[Path]:
    """Yield a directory of mode 0700 that is gone afterwards, also when a stop signal comes.

    SIGTERM unwinds the stack like SIGINT; both wait while the directory is made and removed. Main
    thread only.
    """
    before = signal.signal(signal.SIGTERM, _leave)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    place = Path(tempfile.mkdtemp(prefix="certmesh-drill-"))
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        yield place
    finally:
        try:
            # Runs the handler of a signal that came just before, which may raise here.
            signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
        finally:
            shutil.rmtree(place)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGTERM, before)


def _leave(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(Exit.INTERRUPTED)


def copy_ledger(live: Path, copy: Path) -> int:
    """Copy the last committed state of a ledger; return its size in bytes.

    The live file is opened read-only: a copy of the files could be torn, and a writing connection
    would fold the log beside the file into it. Without a log nobody writes, and looking at the
    file as immutable leaves no log behind either.

    Raises:
        NoMeshError: There is no ledger.
        StorageError: No room for a copy, or the disk refused.
        LedgerDamagedError: The file cannot be read as a database.
    """
    if not live.exists():
        raise NoMeshError(f"{live} is missing", hint="certmesh status")
    size = sum(path.stat().st_size for path in (live, _beside(live, "-wal")) if path.exists())
    require_room(size, shutil.disk_usage(copy.parent).free, copy.parent)
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE))
    how = "mode=ro" if _beside(live, "-wal").exists() else "mode=ro&immutable=1"
    try:
        with closing(_open(live, how)) as source, closing(_open(copy, "mode=rw")) as target:
            source.backup(target)
    except sqlite3.OperationalError as error:
        raise StorageError(f"{live} could not be copied: {error}") from None
    except sqlite3.DatabaseError as error:
        raise LedgerDamagedError(f"{live} could not be copied: {error}") from None
    return copy.stat().st_size


def copy_authority(live: Path, copy: Path) -> int:
    """Copy the files of a CA directory with their modes; return how many there were.

    What a crash in the middle of an exchange left beside it comes along: the vault is then there.

    Raises:
        StorageError: The disk refused.
    """
    count = 0
    for ending in ("", f".{OLD}"):
        source, target = _beside(live, ending), _beside(copy, ending)
        try:
            count += _copy_files(source, target) if source.is_dir() else 0
        except OSError as error:
            raise StorageError(f"{source} could not be copied: {error.strerror}") from None
    return count


def _copy_files(source: Path, target: Path) -> int:
    private_directory(target)
    files = [path for path in source.iterdir() if path.is_file()]
    for path in files:
        shutil.copy(path, target / path.name)
    return len(files)


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(f"{path.name}{ending}")


def require_room(needed: int, free: int, place: Path) -> None:
    """Check that a copy fits, so that it never fills the disk a broker writes to.

    Raises:
        StorageError: Less than `needed` and some spare bytes are free below `place`.
    """
    needed += SPARE_BYTES
    if free < needed:
        raise StorageError(
            f"{place} has {free >> 20} MiB free, a copy needs {needed >> 20}",
            hint="make room, or set TMPDIR to a directory with more",
        )


def _open(path: Path, how: str) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?{how}", uri=True, timeout=BUSY_TIMEOUT_S
    )
