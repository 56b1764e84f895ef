"""The contract between the schedule and whatever breaks things.

An injector is asked whether it fits a mesh, then told to do its harm, with randomness that comes
from the seed alone: the same seed does the same harm. Healing must always work, also when the harm
was only half done, and leave nothing of the injector behind.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

from tests.faults.pool import Pool


@dataclass(frozen=True)
class Harm:
    """Something that is broken now.

    Attributes:
        what: One line for the printed schedule: what, at which node, how long.
        heal: Puts it right; called once, may take as long as the harm was meant to last.
    """

    what: str
    heal: Callable[[], None]


class Injector(Protocol):
    """Breaks one kind of thing.

    Attributes:
        name: Word of the schedule, such as `kill` or `disk-full`.
        weight: How often it is chosen, compared with the others.
        settles_s: Bound: after healing the mesh must be content again within this.
    """

    name: str
    weight: int
    settles_s: float

    def fits(self, nodes: Sequence[Pool]) -> bool:
        """Return whether these running nodes, on this machine, can be harmed this way."""
        ...

    def harm(self, nodes: Sequence[Pool], chance: Random) -> Harm:
        """Do the harm and return how to heal it."""
        ...
