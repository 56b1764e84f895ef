"""One broker per data directory: flock before anything is opened or bound.

ZeroMQ would let a second broker take over an ipc address without a word.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.errors import ConflictError


@contextmanager
def only_broker(path: Path) -> Iterator[None]:
    """Hold the lock while inside.

    Raises:
        ConflictError: Another process holds it; the detail names its pid.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise ConflictError(
                f"another broker (pid {holder}) holds {path}",
                hint="certmesh down stops it",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
