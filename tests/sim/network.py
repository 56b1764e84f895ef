"""Virtual time and a network that loses, delays, doubles, reorders and cuts, in one direction too.

Everything random comes from the seed. A link is *clean* since the moment from which nothing on it
or at its ends could have stopped a message: the oracle demands progress on clean links only.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any

Action = Callable[..., None]
Event = tuple[int, int, int, Action, tuple[Any, ...]]
"""Time, order, node (-1: the world itself), action, arguments."""

WORLD = -1
NEVER = 1 << 60


class Network:
    """The event queue and the state of every link."""

    def __init__(self, rng: Random, nodes: int) -> None:
        self.rng = rng
        self.now = 0
        self.events: list[Event] = []
        self._order = 0
        self.loss = 0.0
        self.double = 0.0
        self.delay_ms = 40
        self.cut = [[0] * nodes for _ in range(nodes)]
        self.cut_changed = [[0] * nodes for _ in range(nodes)]
        self.weather_changed = 0

    def at(self, when: int, node: int, action: Action, *args: Any) -> None:
        """Do something at a time, on behalf of a node."""
        self._order += 1
        heappush(self.events, (when, self._order, node, action, args))

    def pop(self) -> Event:
        """Return the next event and move time to it."""
        event = heappop(self.events)
        self.now = event[0]
        return event

    def send(self, source: int, target: int, action: Action, *args: Any) -> None:
        """Deliver a message to `target`, if the network feels like it."""
        if self.cut[source][target]:
            return
        rng = self.rng
        if self.loss and rng.random() < self.loss:
            return
        self._order += 1
        due = self.now + 1 + int(rng.random() * self.delay_ms)
        heappush(self.events, (due, self._order, target, action, args))
        if self.double and rng.random() < self.double:
            self._order += 1
            later = due + int(rng.random() * 3 * self.delay_ms)
            heappush(self.events, (later, self._order, target, action, args))

    def set_cut(self, source: int, target: int, by: int) -> None:
        """Cut one direction, or undo one cut of it; cuts add up."""
        self.cut[source][target] += by
        self.cut_changed[source][target] = self.now

    def set_weather(self, loss: float, double: float, delay_ms: int) -> None:
        """Change loss, doubling and delay everywhere."""
        self.loss, self.double, self.delay_ms = loss, double, delay_ms
        self.weather_changed = self.now

    def link_clean_since(self, one: int, other: int) -> int:
        """Return since when every message between two nodes has passed."""
        if self.cut[one][other] or self.cut[other][one] or self.loss:
            return NEVER
        changed = self.cut_changed
        return max(changed[one][other], changed[other][one], self.weather_changed)
