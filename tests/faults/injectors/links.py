"""Links between nodes cut, cut one way, or slow; what clients say to a node is not touched."""

import threading
from collections.abc import Sequence
from random import Random

from tests.faults.harness.injector import Harm, Injector
from tests.faults.harness.mesh import Node
from tests.faults.pool import Pool

SLOW_S = (0.02, 0.3)
LONG = 0.25
"""How often a cut outlasts the grace period of the failover."""
LONG_S = (6.0, 9.0)


def _wired(nodes: Sequence[Pool]) -> list[Node]:
    return [node for node in nodes if isinstance(node, Node) and node.wires]


class Cut:
    """Nobody hears anybody, for a moment or for longer than the grace period."""

    name = "partition"
    weight = 3
    settles_s = 90.0

    def fits(self, nodes: Sequence[Pool]) -> bool:
        """Return whether there are two nodes to be parted."""
        return len(_wired(nodes)) > 1

    def harm(self, nodes: Sequence[Pool], chance: Random) -> Harm:
        """Cut every wire."""
        return _cut(_wired(nodes), "every node from every other", chance)


class Deafen:
    """Nobody reaches one node, which still reaches the others."""

    name = "one-way"
    weight = 3
    settles_s = 90.0

    def fits(self, nodes: Sequence[Pool]) -> bool:
        """Return whether there is somebody who could reach another."""
        return len(_wired(nodes)) > 1

    def harm(self, nodes: Sequence[Pool], chance: Random) -> Harm:
        """Cut the wires to one node."""
        node = chance.choice(_wired(nodes))
        return _cut([node], f"the way to {node.name}", chance)


class Slow:
    """Everything between nodes takes its time."""

    name = "slow-links"
    weight = 2
    settles_s = 60.0

    def fits(self, nodes: Sequence[Pool]) -> bool:
        """Return whether nodes speak to each other at all."""
        return len(_wired(nodes)) > 1

    def harm(self, nodes: Sequence[Pool], chance: Random) -> Harm:
        """Delay every chunk."""
        delay_s = chance.uniform(*SLOW_S)
        wires = [wire for node in _wired(nodes) for wire in node.wires]
        for wire in wires:
            wire.delay(delay_s)

        def heal() -> None:
            for wire in wires:
                wire.heal()

        return Harm(f"every link {delay_s:.2f} s slower", heal)


def _cut(nodes: Sequence[Node], what: str, chance: Random) -> Harm:
    more_s = chance.uniform(*LONG_S) if chance.random() < LONG else 0.0
    wires = [wire for node in nodes for wire in node.wires]
    for wire in wires:
        wire.cut()

    def heal() -> None:
        threading.Event().wait(more_s)
        for wire in wires:
            wire.heal()

    return Harm(f"cut {what}, {more_s:.1f} s longer than planned", heal)


INJECTORS: tuple[Injector, ...] = (Cut(), Deafen(), Slow())
