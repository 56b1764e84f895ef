"""One broker per data directory: flock before anything is opened or bound.

ZeroMQ would let a second broker take over an ipc address without a word.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.errors import ConflictError, StorageError


@contextmanager
def only_broker(path: Path) -> Iterator[None]:
    """Hold the lock while inside.

    Raises:
        ConflictError: Another process holds it; the detail names its pid.
        StorageError: The disk takes no writes, or somebody else owns the file.
    """
    descriptor = _opened(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise ConflictError(
                f"another broker (pid {holder}) holds {path}",
                hint="certmesh down stops it",
            ) from None
        with contextlib.suppress(OSError):
            # Only words for whoever comes second: a full disk must not keep the first one out.
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StorageError(
            f"cannot open {path}: {error.strerror}",
            hint=f"make the disk below {path.parent} writable for this user",
        ) from error
