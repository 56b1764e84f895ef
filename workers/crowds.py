"""Who holds how many connections of one door, and who has to go when there is no room. Sans-IO.

Invariants: no crowd has more than its share; a full door lets a newcomer in as long as some crowd
holds at least two more than the newcomer's. So strangers, however many addresses they have, keep
out nobody who comes from an address of its own: they keep out each other.
"""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar


class Guest(Protocol):
    """One connection, as far as it matters for room."""

    @property
    def is_waiting(self) -> bool:
        """Whether it has proved nothing yet: its handshake is under way."""
        ...

    @property
    def is_idle(self) -> bool:
        """Whether nobody is at work for it."""
        ...


G = TypeVar("G", bound=Guest)


class Crowds(Generic[G]):
    """The connections of one door, oldest first, by crowd.

    Args:
        per_crowd: Connections that one crowd may hold.
        total: Connections that all of them may hold.
    """

    def __init__(self, per_crowd: int, total: int) -> None:
        self._per_crowd = per_crowd
        self._total = total
        self._guests: dict[str, OrderedDict[G, None]] = {}
        self.count = 0

    def has_share(self, crowd: str) -> bool:
        """Return whether `crowd` may hold one more."""
        return self.held(crowd) < self._per_crowd

    def held(self, crowd: str) -> int:
        """Return how many connections `crowd` holds."""
        return len(self._guests.get(crowd, ()))

    @property
    def is_full(self) -> bool:
        """Whether somebody has to go before anybody can come."""
        return self.count >= self._total

    def enter(self, crowd: str, guest: G) -> None:
        """Count a connection in."""
        self._guests.setdefault(crowd, OrderedDict())[guest] = None
        self.count += 1

    def leave(self, crowd: str, guest: G) -> None:
        """Count a connection out; once only, whoever says so again."""
        held = self._guests.get(crowd)
        if held is None or guest not in held:
            return
        del held[guest]
        self.count -= 1
        if not held:
            del self._guests[crowd]

    def who_goes(self, crowd: str) -> G | None:
        """Return whose place a newcomer of `crowd` may have, None when it is not to come in.

        One of the largest crowd, if that holds so much more that the newcomer's does not get the
        larger one by it: first who has proved nothing, then who is idle, the oldest of them. Who is
        being answered stays.
        """
        largest = max(self._guests.values(), key=len, default=None)
        if largest is None or len(largest) < self.held(crowd) + 2:
            return None
        waiting = next((guest for guest in largest if guest.is_waiting), None)
        return waiting or next((guest for guest in largest if guest.is_idle), None)
