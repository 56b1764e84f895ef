"""The recovery kit on paper: what it is, what it opens, and how it is used."""

from collections.abc import Sequence
from pathlib import Path

from broker.cli.shape import day, grouped
from broker.errors import ConflictError, StorageError
from broker.runtime.files import write_new
from broker.wire.authority import MeshCreation

GROUPS_IN_LINE = 7


def secret_lines(secret: str) -> Sequence[str]:
    """Return the recovery secret in two lines of groups, as it is read off paper."""
    groups = secret.split("-")
    starts = range(0, len(groups), GROUPS_IN_LINE)
    return [" ".join(groups[start : start + GROUPS_IN_LINE]) for start in starts]


def kit_text(made: MeshCreation, now: int) -> str:
    """Return the page to print; it holds the secret."""
    rows = "\n".join(f"    {line}" for line in secret_lines(made.recovery))
    return f"""\
certmesh recovery kit

mesh      {made.name}
made on   {made.host}, {day(now)}
sha256    {grouped(made.pin)}

secret
{rows}

What it is
    With this page and a backup file, everything of the CA can be restored on a new machine, also
    when the passphrase is forgotten. With this page and the disk of a key holder, somebody else
    can do so too. Keep it where you keep what you cannot lose, and apart from the backups.

How to use it
    1. Install certmesh on the new machine. Copy a backup file (*.cmbackup) there.
    2. certmesh backup verify FILE --kit-file -        opens everything, changes nothing
    3. certmesh backup restore FILE --kit-file -       type the secret, or give a file that has it
    4. certmesh up                                     it asks the members before it serves

    The last group is a checksum: a typing error is found at once. Case and blanks do not matter.
"""


def free_place(file: str) -> Path | None:
    """Return where the kit will go, None when nobody wants one.

    Raises:
        ConflictError: Something is there; said before anything is made.
    """
    if not file:
        return None
    path = Path(file).expanduser()
    if path.exists() or not path.absolute().parent.is_dir():
        raise ConflictError(f"no kit can be written to {path}", hint="name a new file")
    return path


def write_kit(file: Path, text: str) -> None:
    """Write the kit, 0600, where there is no file yet.

    Raises:
        ConflictError: There is one.
        StorageError: The disk refused.
    """
    try:
        write_new(file, text.encode())
    except FileExistsError:
        raise ConflictError(f"{file} exists already", hint="name a new file") from None
    except OSError as error:
        raise StorageError(f"cannot write {file}: {error.strerror}") from None
