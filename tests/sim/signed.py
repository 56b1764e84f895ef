"""What is signed in a simulated mesh: tokens that only the holder of the issuing key can make."""

from typing import NamedTuple

from broker.core.observation import Version
from broker.wire.claims import PrimaryBeat


class Head(NamedTuple):
    """A signed head, or one that only looks like it."""

    version: Version
    hash: int
    primary: str
    genuine: bool = True


class ForgedBeat(PrimaryBeat, frozen=True):
    """A beat whose signature does not verify."""


class Gossip(NamedTuple):
    """The newest statements a node has, passed on with every message."""

    beats: tuple[PrimaryBeat, ...]
    head: Head | None

    def without(self, hosts: set[str]) -> "Gossip":
        """Return this without the beats of revoked primaries."""
        return Gossip(tuple(b for b in self.beats if b.primary not in hosts), self.head)


def verified(gossip: Gossip) -> Gossip:
    """Return what of a gossip a node with the issuing certificate believes."""
    beats = gossip.beats
    for beat in beats:
        if type(beat) is not PrimaryBeat:
            beats = tuple(b for b in beats if type(b) is PrimaryBeat)
            break
    head = gossip.head
    return Gossip(beats, head if head is not None and head.genuine else None)
