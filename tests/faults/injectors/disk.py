"""The disk of one node: full, read-only, failing to sync, or torn in the middle of a write.

The node must have been created with `environment(directory)`; every node needs a directory of its
own, which outlives its processes.
"""

import errno
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.faults.harness.injector import Harm, Injector
from tests.faults.pool import Pool
from tests.faults.shim.build import COMPILER
from tests.faults.shim.disk import CHANGES, GROWTH, RULES_FILE, Action, Calls, Disk, Rule

SKIP_MAX = 20


def environment(directory: Path) -> dict[str, str]:
    """Return what the processes of one node need; empty where nothing can be compiled."""
    return {} if COMPILER is None else Disk(directory).environment(only="-m broker ")


class SickDisk:
    """Makes the disk of one node's broker misbehave until it is healed.

    Attributes:
        name: Word of the schedule.
        weight: How often it is chosen.
        settles_s: After healing the node is content within this.
    """

    settles_s = 30.0

    def __init__(self, name: str, weight: int, calls: Calls, action: Action, error: int) -> None:
        self.name = name
        self.weight = weight
        self._what = (calls, action, error)

    def fits(self, nodes: Sequence[Pool]) -> bool:
        """Return whether some node was created with the shim inside."""
        return any(RULES_FILE in node.environment for node in nodes)

    def harm(self, nodes: Sequence[Pool], chance: Random) -> Harm:
        """Put the rule into force at one node."""
        node = chance.choice([node for node in nodes if RULES_FILE in node.environment])
        disk = Disk.at(Path(node.environment[RULES_FILE]))
        calls, action, error = self._what
        prefix, once = f"{node.home}/", action is Action.TEAR
        skip = chance.randint(0, SKIP_MAX) if once else 0
        disk.set(0, Rule(calls, action, error, prefix, "", skip, 1 if once else -1))

        def heal() -> None:
            disk.clear()
            disk.close()

        return Harm(f"{self.name} at {node.name}" + (f", write {skip}" if once else ""), heal)


INJECTORS: tuple[Injector, ...] = (
    SickDisk("disk-full", 2, GROWTH, Action.FAIL, errno.ENOSPC),
    SickDisk("disk-read-only", 1, CHANGES, Action.FAIL, errno.EROFS),
    SickDisk("fsync-fails", 1, Calls.SYNC, Action.FAIL, errno.EIO),
    SickDisk("torn-write", 2, Calls.WRITE, Action.TEAR, 0),
)
