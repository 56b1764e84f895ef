"""The wall clock of one node, set wrong for a while; what counts intervals goes on undisturbed.

The nodes must have been created with `environment(directory)` for their processes; every node needs
a directory of its own.
"""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

from tests.faults.harness.injector import Harm
from tests.faults.pool import Pool
from tests.faults.shim.build import Clock

VARIABLE = "CERTMESH_SHIM_CLOCK"
HOUR_S = 3_600
DAY_S = 86_400
JUMPS_S = (HOUR_S, -2 * HOUR_S, 400 * DAY_S, -365 * DAY_S, 10, -10)
"""Ahead and back: within what is warned about, and beyond what anything is signed with."""


def environment(directory: Path) -> Mapping[str, str]:
    """Return what the processes of one node need; `directory` outlives them.

    Raises:
        NoCompilerError: There is no `cc` here to make the library.
    """
    return Clock(directory).environment()


class ClockJump:
    """Sets the clock of one node wrong, once or back and forth, until it is healed."""

    name = "clock"
    weight = 2
    settles_s = 60.0

    def fits(self, nodes: Sequence[Pool]) -> bool:
        """Return whether the processes of some node follow a clock of ours."""
        return any(VARIABLE in node.environment for node in nodes)

    def harm(self, nodes: Sequence[Pool], chance: Random) -> Harm:
        """Set the clock of one node wrong and return how to set it right."""
        node = chance.choice([node for node in nodes if VARIABLE in node.environment])
        offset = Path(node.environment[VARIABLE])
        jumps = [chance.choice(JUMPS_S) for _ in range(chance.randint(1, 3))]
        for jump_s in jumps:
            _set(offset, jump_s)

        def heal() -> None:
            _set(offset, 0)

        said = ", ".join(f"{jump_s:+d} s" for jump_s in jumps)
        return Harm(f"clock of {node.name}: {said}", heal)


def _set(offset: Path, seconds: int) -> None:
    with offset.open("r+b") as file:
        file.write(struct.pack("=q", seconds * 1000))


INJECTORS = (ClockJump(),)
