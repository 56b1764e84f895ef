"""From a seed to a plan: how many nodes, who works, what breaks when. Pure, and printable.

The plan is the seed's alone. What the machine makes of it (which line of the broker a SIGKILL
hits) is not: a seed that failed once may pass the next time, so a failure shows everything it has.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from typing_extensions import override

BLOCK = 20
"""So many seeds in a row share a mesh."""
SIZES = (1, 3, 1, 2)
"""Nodes of the meshes, block after block."""
ACTORS = 3
BLOWS_MAX = 3
WISHES = 8
CALM_S = (0.1, 0.6)
LASTS_S = (0.2, 1.5)
OVERLAP = 0.3
"""How often the next fault comes before the one before is healed: then only safety is promised."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One kind of fault and how often it is wanted."""

    name: str
    weight: int


@dataclass(frozen=True, slots=True)
class Blow:
    """One fault.

    Attributes:
        after_s: Calm before it.
        lasts_s: How long it stays, where the injector leaves that open.
        wishes: Injectors in the order of preference; the first that fits the mesh does it.
        chance: Seed of what it decides itself.
        overlaps: Whether it begins before the one before is healed.
    """

    after_s: float
    lasts_s: float
    wishes: tuple[str, ...]
    chance: int
    overlaps: bool

    @override
    def __str__(self) -> str:
        """Return one line of the schedule."""
        how = " over the one before" if self.overlaps else ""
        first, *others = self.wishes
        instead = f" (or {', '.join(others[:2])})" if others else ""
        return f"after {self.after_s:.2f} s for {self.lasts_s:.2f} s: {first}{instead}{how}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one seed does."""

    seed: int
    size: int
    actors: tuple[int, ...]
    blows: tuple[Blow, ...]

    def lines(self) -> tuple[str, ...]:
        """Return the plan as it is printed."""
        head = f"seed {self.seed}: {self.size} nodes, {len(self.actors)} clients"
        return (head, *(f"  {blow}" for blow in self.blows))


def size_of(seed: int) -> int:
    """Return how many nodes the mesh of this seed has."""
    return SIZES[seed // BLOCK % len(SIZES)]


def draw(seed: int, choices: Sequence[Choice], size: int = 0) -> Plan:
    """Return the plan of a seed.

    Args:
        seed: Decides everything.
        choices: What can be broken.
        size: Nodes, 0 for what the seed says.
    """
    chance = Random(f"certmesh faults {seed}")
    actors = tuple(chance.randrange(2**32) for _ in range(ACTORS))
    count = chance.choices(range(1, BLOWS_MAX + 1), (5, 3, 2))[0]
    blows = tuple(_blow(chance, choices, is_first=number == 0) for number in range(count))
    return Plan(seed, size or size_of(seed), actors, blows)


def _blow(chance: Random, choices: Sequence[Choice], *, is_first: bool) -> Blow:
    return Blow(
        after_s=round(chance.uniform(*CALM_S), 3),
        lasts_s=round(chance.uniform(*LASTS_S), 3),
        wishes=_wishes(chance, list(choices)),
        chance=chance.randrange(2**32),
        overlaps=not is_first and chance.random() < OVERLAP,
    )


def _wishes(chance: Random, left: list[Choice]) -> tuple[str, ...]:
    """Return names in a random order in which the heavy ones tend to come first."""
    names: list[str] = []
    while left and len(names) < WISHES:
        found = chance.choices(left, [choice.weight for choice in left])[0]
        left.remove(found)
        names.append(found.name)
    return tuple(names)
