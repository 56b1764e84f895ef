"""A worker between two brokers: its own node's, which hosts it, and the CA's, which has the work.

Both are told that it lives while it waits for members: to the one it is a process that must not
hang, to the other a worker whose leases would go back.
"""

from typing import TypeVar

from broker.client import Link
from broker.client.protocol import ASK_MS, promise_ms
from broker.clock import boottime_ms
from broker.runtime.paths import Paths
from broker.units import Millis
from broker.wire.base import Reply, Request
from broker.wire.liveness import SILENCE_MS_MAX, Beat
from workers.process import Desk

R = TypeVar("R", bound=Reply)


class Outpost:
    """Asks the CA's broker, waits at the own desk."""

    def __init__(self, desk: Desk, link: Link) -> None:
        self._desk = desk
        self._link = link
        self._progress = 0
        self._beat_at = Millis(0)

    @property
    def paths(self) -> Paths:
        """Where this node's files are."""
        return self._desk.paths

    def ask(self, request: Request, kind: type[R], /) -> R:
        """Return the CA's reply; beats at home first, because it may take long.

        Raises:
            MeshError: The refusal, or why there is no reply.
        """
        self._desk.beat(ASK_MS)
        return self._link.ask(request, kind)

    def post(self, request: Request, /) -> object:
        """Send to the CA without waiting; the answer is not looked at."""
        return self._link.post(request)

    def wait(self, wait_ms: int, /, *descriptors: int) -> object:
        """Sleep until a descriptor is readable, a stop is asked, or the time is over."""
        deadline_ms = boottime_ms() + wait_ms
        while True:
            self._link.collect()
            if self._link.keep_registered() and boottime_ms() >= self._beat_at:
                self.beat(0)
            left_ms = max(0, deadline_ms - boottime_ms())
            found = self._desk.wait(min(left_ms, self._link.beat_every_ms), *descriptors)
            if found or self._desk.stopping() or boottime_ms() >= deadline_ms:
                return found

    def stopping(self) -> bool:
        """Return whether the process was asked to stop."""
        return self._desk.stopping()

    def beat(self, within_ms: int, state: str = "") -> None:
        """Tell the CA that this worker lives, and may be silent for `within_ms` from now."""
        every_ms = self._link.beat_every_ms
        self._progress += 1
        self._beat_at = Millis(boottime_ms() + every_ms)
        promised_ms = min(max(0, within_ms) + promise_ms(every_ms), SILENCE_MS_MAX)
        self._link.beat(Beat(progress=self._progress, within_ms=promised_ms, state=state))
