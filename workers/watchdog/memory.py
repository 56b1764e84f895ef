"""Restart counts that survive a restart of the watchdog, itself included in the count.

They belong to one lifetime of supervisord, known by its pid and its start time (a container's
supervisord is pid 1 each time).
"""

import os
from pathlib import Path

import msgspec

from workers.watchdog.logic import Tally


class _Kept(msgspec.Struct, frozen=True):
    supervisord: str
    tallies: dict[str, tuple[int, int]]


class Memory:
    """The counts in a file of the run directory; losing it only loses numbers on a screen."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._supervisord = _lifetime(os.getppid())
        self._written: dict[str, Tally] = {}

    def load(self) -> dict[str, Tally]:
        """Return what is known about this supervisord's programs."""
        try:
            kept = msgspec.json.decode(self._path.read_bytes(), type=_Kept)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return {}
        if kept.supervisord != self._supervisord:
            return {}
        return {name: Tally(pid, restarts) for name, (pid, restarts) in kept.tallies.items()}

    def save(self, tallies: dict[str, Tally]) -> None:
        """Keep `tallies` when they changed."""
        if tallies == self._written:
            return
        kept = _Kept(self._supervisord, {name: (t.pid, t.restarts) for name, t in tallies.items()})
        staged = self._path.with_suffix(".new")
        staged.write_bytes(msgspec.json.encode(kept))
        staged.replace(self._path)
        self._written = dict(tallies)


def _lifetime(pid: int) -> str:
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return str(pid)
    return f"{pid}/{after_name[19]}"  # field 22 of stat(5): start time in ticks since boot
