"""Files that are either the old ones or the new ones, never in between.

Rename alone does not survive a power cut: without fsync of the directory the last file was lost
in 8 of 12 trials.

Everything made here is closed to other users, with one exception: a directory that carries both
the set-group-id and the sticky bit is shared with its group (`certmesh up` makes such ones, where
`[users]` says that processes are different users). Its group may read what is made in it.
"""

import contextlib
import os
import stat
from pathlib import Path

from broker.runtime.planted import refuse_planted

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600
SHARED_DIRECTORY_MODE = 0o3750
SHARED_FILE_MODE = 0o640
_SHARED_BITS = stat.S_ISGID | stat.S_ISVTX


def write_atomic(path: Path, content: bytes, mode: int = FILE_MODE) -> None:
    """Replace `path` by a file with `content`, durable when this returns."""
    staged = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        write_new(staged, content, mode)
        staged.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            staged.unlink()
        raise
    fsync_directory(path.parent)


def write_new(path: Path, content: bytes, mode: int = FILE_MODE) -> None:
    """Create `path` with `content` and fsync it; the directory is left to the caller.

    Raises:
        FileExistsError: Something is there already, a link included.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    if is_shared(path.parent):
        mode |= SHARED_FILE_MODE
    descriptor = os.open(path, flags, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)  # the umask may have taken bits away
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def private_directory(path: Path) -> Path:
    """Make `path` and its parents where missing, close it to other users, and return it.

    One that is shared with a group stays as it is, and what is made inside it is shared as well.

    Raises:
        PermissionError: The directory belongs to another user.
        SettingsError: Another user may have put it there, or a link on the way to it.
    """
    refuse_planted(path)
    path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    if not is_shared(path):
        path.chmod(SHARED_DIRECTORY_MODE if is_shared(path.parent) else DIRECTORY_MODE)
    return path


def is_shared(directory: Path) -> bool:
    """Return whether a directory was shared with its group on purpose."""
    try:
        return stat.S_IMODE(directory.stat().st_mode) & _SHARED_BITS == _SHARED_BITS
    except OSError:
        return False


def write_kept(path: Path, content: bytes) -> None:
    """As `write_atomic`; a file that its group may read stays one.

    For files without secrets, which programs of other users need: settings and membership.
    """
    mode = FILE_MODE
    with contextlib.suppress(OSError):
        found = path.stat()
        mode |= found.st_mode & stat.S_IRGRP
    write_atomic(path, content, mode)


def fsync_directory(path: Path) -> None:
    """Make the names in directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
