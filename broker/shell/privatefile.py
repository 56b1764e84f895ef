"""Reading files that hold secrets: what others may read, or may have written, is not read.

Nothing stands in for a file that is refused or missing; in particular no key is ever derived from
something public such as the machine id.
"""

import os
import stat
from pathlib import Path

from broker.errors import LedgerDamagedError

OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""Nobody but the owner."""
WORLD = stat.S_IRWXO | stat.S_IWGRP | stat.S_IXGRP
"""As `OTHERS`, but a group may read: systemd gives credentials by an access list, whose mask shows
as the group's bits (systemd.exec(5), section Credentials)."""
ROOT_UID = 0


def read_private(path: Path, bytes_max: int, closed_to: int = OTHERS) -> bytes:
    """Return the content of a file that belongs to this user or to root.

    Owner and mode are those of the file that was opened, so an exchange in between changes nothing.

    Args:
        path: A link is followed; what counts is the file behind it.
        bytes_max: A larger file is not read.
        closed_to: Permission bits that must not be set.

    Raises:
        LedgerDamagedError: Open to others, of another owner, no plain file, too large, unreadable.
        FileNotFoundError: No such file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            _check(path, os.fstat(file.fileno()), bytes_max, closed_to)
            return file.read(bytes_max + 1)[:bytes_max]
    except FileNotFoundError:
        raise
    except OSError as error:
        raise LedgerDamagedError(
            f"cannot read {path}: {error.strerror}", hint=f"restore {path.parent} from a backup"
        ) from None


def _check(path: Path, found: os.stat_result, bytes_max: int, closed_to: int) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if mode & closed_to:
        raise LedgerDamagedError(
            f"{path} is open to other users (mode {mode:04o}); it was not read",
            hint=f"chmod 600 {path}",
        )
    own = os.geteuid()
    if found.st_uid not in (own, ROOT_UID):
        raise LedgerDamagedError(
            f"{path} belongs to uid {found.st_uid}, not to uid {own}; it was not read",
            hint=f"find out who put it there, then: chown {own} {path}",
        )
    if not stat.S_ISREG(found.st_mode):
        raise LedgerDamagedError(f"{path} is no plain file", hint="remove it")
    if found.st_size > bytes_max:
        raise LedgerDamagedError(
            f"{path} is damaged: it has more than {bytes_max} bytes",
            hint=f"restore {path.parent} from a backup",
        )
