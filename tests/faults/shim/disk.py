"""The Python side of `disk.c`: which calls go wrong, and what a power cut would have left.

    disk = Disk(place)                                # compiles; `place` outlives the processes
    pool = Pool.create(port, environment=disk.environment(only="-m broker "))
    disk.set(0, Rule(Calls.WRITE, Action.FAIL, ENOSPC, prefix=str(pool.home)))
    disk.clear()

With `below` set, every change under that directory is kept in a journal until `power.pull` plays a
power cut with it.
"""

import enum
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.faults.shim.build import compiled

RULES_FILE = "CERTMESH_SHIM_DISK"
"""Names the file with the rules, in the environment of the processes."""
RULES_MAX = 8
_RULE = struct.Struct("=iiiiqqq192s40s")
_HITS_AT = 32


class Calls(enum.IntFlag):
    """Kinds of calls; OPEN is one that creates, truncates or opens for writing, READ a `pread`."""

    OPEN = 1
    WRITE = 2
    SYNC = 4
    RENAME = 8
    TRUNCATE = 16
    UNLINK = 32
    MKDIR = 64
    READ = 128


class Action(enum.IntEnum):
    """What happens to a call.

    SHORT writes half and says so; TEAR writes half and kills; LIE says yes to a sync and does
    nothing.
    """

    PASS = 0
    FAIL = 1
    SHORT = 2
    TEAR = 3
    KILL_BEFORE = 4
    KILL_AFTER = 5
    LIE = 6


CHANGES = Calls(127) & ~Calls.SYNC
"""What a disk that is mounted read-only refuses."""
GROWTH = Calls.OPEN | Calls.WRITE | Calls.MKDIR
"""What a full disk refuses."""
EVER = -1


@dataclass(frozen=True)
class Rule:
    """One way in which the disk misbehaves.

    Attributes:
        calls: Which calls it is about.
        action: What happens to them.
        error: The errno of FAIL.
        prefix: Only paths that begin so.
        part: Only paths with this in them.
        skip: So many matching calls are let through first.
        times: So many are hit then; EVER for all of them.
    """

    calls: Calls
    action: Action
    error: int = 0
    prefix: str = "/"
    part: str = ""
    skip: int = 0
    times: int = EVER


class Disk:
    """The rules that the processes of one node obey."""

    def __init__(self, place: Path) -> None:
        self._library = compiled("disk", place)
        self._place = place
        rules = place / "disk.rules"
        rules.write_bytes(bytes(_RULE.size * RULES_MAX))
        self._table = _mapped(rules)

    @classmethod
    def at(cls, rules: Path) -> Self:
        """Return another hold on the rules that processes obey already."""
        disk = cls.__new__(cls)
        disk._place, disk._library = rules.parent, rules.parent / "disk.so"
        disk._table = _mapped(rules)
        return disk

    def environment(self, *, only: str = "", below: Path | None = None) -> dict[str, str]:
        """Return what the processes need.

        Args:
            only: Processes whose command line has this in it; empty for all.
            below: Keep a journal of changes under this directory, for `power.pull`.
        """
        found = {
            "LD_PRELOAD": str(self._library),
            RULES_FILE: str(self._place / "disk.rules"),
        }
        if only:
            found["CERTMESH_SHIM_ONLY"] = only
        if below is not None:
            found["CERTMESH_SHIM_JOURNAL"] = str(self._place)
            found["CERTMESH_SHIM_BELOW"] = str(below)
        return found

    def set(self, number: int, rule: Rule) -> None:
        """Put a rule into force at once; its calls are counted from now."""
        values = (rule.calls, Action.PASS, rule.error, 0, rule.skip, rule.times, 0)
        at = number * _RULE.size
        packed = _RULE.pack(*values, rule.prefix.encode(), rule.part.encode())
        self._table[at : at + _RULE.size] = packed
        # Last, so that no process sees half a rule.
        self._table[at + 4 : at + 8] = struct.pack("=i", rule.action)

    def hits(self, number: int) -> int:
        """Return how many calls matched a rule, those let through included."""
        at = number * _RULE.size + _HITS_AT
        (hits,) = struct.unpack("=q", self._table[at : at + 8])
        return int(hits)

    def clear(self) -> None:
        """Let the disk be well."""
        for number in range(RULES_MAX):
            at = number * _RULE.size + 4
            self._table[at : at + 4] = struct.pack("=i", Action.PASS)

    def close(self) -> None:
        """Let go of the table."""
        self._table.close()


def _mapped(rules: Path) -> mmap.mmap:
    with rules.open("r+b") as file:
        return mmap.mmap(file.fileno(), 0)
