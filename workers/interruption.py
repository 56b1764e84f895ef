"""Waiting that ends when another round is wanted: an event came, or another broker answers.

What a round was planned for may be over while it waits for other nodes: this node became the
primary, or has something to fetch. The loop that waits through an `Interruption` breaks off and
asks for a new plan at once.
"""

from broker.clock import boottime_ms
from broker.runtime.paths import Paths
from workers.process import LOOK_UP_MS, Desk


class Interruption:
    """The vigil of one round.

    Args:
        desk: Does the waiting; the loop beats through it.
        patience_ms: How long the round may go on all the same, so that events which come one after
            the other do not keep living nodes from answering.
    """

    def __init__(self, desk: Desk, patience_ms: int = 0) -> None:
        self._desk = desk
        self._until_ms = boottime_ms() + patience_ms
        self._broker_life = desk.broker_life()
        self.came = False

    @property
    def paths(self) -> Paths:
        """Where this node's files are."""
        return self._desk.paths

    def wait(self, wait_ms: int, /, *descriptors: int) -> None:
        """Wait as the desk does, also for events; never much longer than a broker needs to come."""
        if self.came:
            wait_ms = min(wait_ms, max(0, self._until_ms - boottime_ms()))
        events = self._desk.events
        sockets = (events.socket,) if events is not None else ()
        self._desk.wait(min(wait_ms, LOOK_UP_MS), *sockets, *descriptors)
        while events is not None and events.receive() is not None:
            self.came = True
        if self._desk.broker_life() != self._broker_life:
            self.came = True  # and what the last one planned may be forgotten

    def stopping(self) -> bool:
        """Return whether to wait no longer: another round is wanted, or the process stops."""
        return self._desk.stopping() or (self.came and boottime_ms() >= self._until_ms)
