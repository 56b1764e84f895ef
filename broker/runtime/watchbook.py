"""What the watchdog counted, in a file of the run directory, for its next life and for people.

Restarts and how processes ended belong to one lifetime of supervisord. Losing the file only loses
numbers on a screen, so it is replaced without fsync, and a full disk is no reason to stop.
"""

import contextlib
from pathlib import Path

import msgspec

NAME = "watchdog.json"


class Counted(msgspec.Struct, frozen=True):
    """What is known about one program.

    Attributes:
        pid: Of the newest process that was seen.
        restarts: Processes after the first.
        since_ms: When that one was first seen, boot clock.
        ended_pid: Who ended last, 0 for one that was gone before anybody looked.
        ended: How it ended; empty when none did.
        ended_at: When that was noticed, wall clock; None when nobody knows.
    """

    pid: int = 0
    restarts: int = 0
    since_ms: int = 0
    ended_pid: int = 0
    ended: str = ""
    ended_at: int | None = None


class Watchbook(msgspec.Struct, frozen=True):
    """The whole file; `supervisord` tells whose lifetime it speaks of."""

    supervisord: str
    programs: dict[str, Counted] = {}


def lifetime_of(pid: int) -> str:
    """Return a name for the lifetime of a process: in a container every supervisord is pid 1."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return str(pid)
    return f"{pid}/{after_name[19]}"  # field 22 of stat(5): start time in ticks since boot


def read_watchbook(run: Path, supervisord: int) -> dict[str, Counted]:
    """Return what was counted under this supervisord, by program."""
    try:
        book = msgspec.json.decode((run / NAME).read_bytes(), type=Watchbook)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return book.programs if book.supervisord == lifetime_of(supervisord) else {}


def write_watchbook(run: Path, supervisord: int, programs: dict[str, Counted]) -> None:
    """Replace the file, if the disk takes it."""
    path = run / NAME
    staged = path.with_suffix(".new")
    book = Watchbook(lifetime_of(supervisord), programs)
    with contextlib.suppress(OSError):
        staged.write_bytes(msgspec.json.encode(book))
        staged.replace(path)
