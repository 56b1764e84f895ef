"""A member in the hands of somebody else: it has a certificate, and every old message on tape.

It cannot sign for the issuing key, so it forges in vain; what it can do is to repeat what was
signed once, in any order and to anybody. A hostile host without a certificate can do less: nobody
completes a handshake with it, and what it says over mDNS reaches no election.
"""

from typing import TYPE_CHECKING

from broker.core.observation import Version
from broker.wire.claims import PrimaryBeat
from tests.sim.signed import ForgedBeat, Gossip, Head

if TYPE_CHECKING:
    from tests.sim.world import World


class Hostile:
    """Says what it likes in the place of one member."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.node = world.members[-1]
        self._played: dict[str, int] = {}
        self._beats: list[PrimaryBeat] = []
        self._heads: list[Head] = []

    def overhears(self, gossip: Gossip) -> None:
        """Record what is said to this member."""
        self._beats.extend(beat for beat in gossip.beats if beat not in self._beats[-8:])
        if gossip.head is not None:
            self._heads.append(gossip.head)

    def gossip(self) -> Gossip:
        """Return forged and replayed statements."""
        world = self.world
        return Gossip((*self._replayed(), *self._forged()), self._head(world))

    def _replayed(self) -> tuple[PrimaryBeat, ...]:
        """Play somebody's beats again one after the other, so that each seems to advance."""
        rng, tape = self.world.rng, self._beats
        if not tape:
            return ()
        chosen = tape[int(rng.random() * len(tape))]
        at = self._played.get(chosen.primary, 0)
        own = [index for index, beat in enumerate(tape) if beat.primary == chosen.primary]
        index = next((index for index in own if index >= at), own[0])
        self._played[chosen.primary] = index + 1
        return (tape[index], chosen)

    def _forged(self) -> tuple[PrimaryBeat, ...]:
        rng = self.world.rng
        if rng.random() < 0.5:
            return ()
        host = self.world.holder_hosts[int(rng.random() * len(self.world.holder_hosts))]
        return (ForgedBeat("", host, 1_000_000, 1, left=rng.random() < 0.5),)

    def _head(self, world: "World") -> Head | None:
        rng, tape = world.rng, self._heads
        if rng.random() < 0.3:
            return Head(Version(1_000_000, 1), 0, self.node.host, genuine=False)
        return tape[int(rng.random() * len(tape))] if tape else None
