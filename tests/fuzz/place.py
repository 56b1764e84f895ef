"""A private directory of this process for targets that read files; gone when it ends."""

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path

OUTER = "CERTMESH_FUZZ_PLACE"
"""Where to make it: libFuzzer ends a process without a chance to tidy up, its parent does."""


@functools.cache
def place() -> Path:
    """Return the directory; its name is short, sockets may lie in it."""
    outer = os.environ.get(OUTER, "/tmp")  # noqa: S108 (short, for sockets)
    directory = Path(tempfile.mkdtemp(prefix="cmz-", dir=outer))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def file_of(octets: bytes, name: str) -> Path:
    """Return a file with these octets, 0600; the next call with the same name replaces it."""
    path = place() / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(octets)
    return path
