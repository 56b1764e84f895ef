"""How the processes of a node ended last, in supervisord's own words.

Its table forgets the status of a process once the next one runs; its log does not. The log is a
hint for people and for patience: a line that cannot be found means that nobody knows.

Source: supervisor/process.py, `Subprocess.finish` and `_spawn_as_parent`.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

TAIL_BYTES = 65_536
TEXT_LENGTH_MAX = 200
_LINE = re.compile(
    r" (?:(?P<how>exited|stopped): (?P<ended>\S+) \((?P<words>.*?)(?:; (?:not )?expected)?\)"
    r"|spawned: '(?P<spawned>[^']+)' with pid (?P<pid>\d+))$"
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How one process ended.

    Attributes:
        words: `exit status 1` or `terminated by SIGKILL`.
        was_asked: Supervisord had told it to stop.
    """

    words: str
    was_asked: bool

    @property
    def was_killed(self) -> bool:
        """Whether somebody else ended it: an operator, the watchdog, the kernel."""
        return self.words.startswith("terminated by SIGKILL")


def endings(log: Path) -> dict[str, Ending]:
    """Return how the process before the present one ended, by name, as far as the log's end says.

    A name is missing when nobody saw it end: supervisord itself died, or its log began anew.
    """
    found: dict[str, Ending] = {}
    present: dict[str, int] = {}
    for line in reversed(_tail(log)):
        match = _LINE.search(line)
        if match is None:
            continue
        name = match["ended"] or match["spawned"]
        if match["spawned"]:
            # Of two starts without an end between them the earlier end belongs to nobody here.
            present[name] = present.get(name, 0) + 1
        elif name not in found and present.get(name, 0) <= 1:
            found[name] = Ending(match["words"][:TEXT_LENGTH_MAX], match["how"] == "stopped")
    return found


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
