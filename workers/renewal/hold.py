"""Keeps the lease of the item under way for as long as the work goes on.

The broker grants ten minutes at most, and hooks may take longer. The extension is posted, not
asked for: a hook must not wait for a broker that restarts. Whether the lease held is learned when
the result is offered under it.
"""

from broker.clock import boottime_ms
from broker.units import Millis
from broker.wire.control import Ack
from broker.wire.work import ExtendLease, Lease
from workers.process import Desk

EXTEND_EVERY_MS = 20_000
"""The shortest lease (60 s) outlives two lost extensions."""


class Hold:
    """The lease that this worker holds now, if any.

    Args:
        desk: The broker.
        every_ms: How often to extend.
    """

    def __init__(self, desk: Desk, every_ms: int = EXTEND_EVERY_MS) -> None:
        self.every_ms = every_ms
        self._desk = desk
        self._extension: ExtendLease | None = None
        self._due_ms = Millis(0)

    def begin(self, lease: Lease, wanted_ms: int) -> None:
        """Make the lease last as long as the work may take, or as long as the broker allows.

        Raises:
            LeaseLostError: It is over already; another worker may have begun.
        """
        extension = ExtendLease(lease.lease_id, max(wanted_ms, lease.ttl_ms))
        if wanted_ms > lease.ttl_ms:
            self._desk.ask(extension, Ack)
        self._extension = extension
        self._due_ms = Millis(boottime_ms() + self.every_ms)

    def keep(self) -> None:
        """Extend the lease when it is time; does not wait."""
        now_ms = boottime_ms()
        if self._extension is None or now_ms < self._due_ms:
            return
        self._desk.link.post(self._extension)
        self._due_ms = Millis(now_ms + self.every_ms)

    def end(self) -> None:
        """Let go of the lease; completing or releasing it is somebody else's."""
        self._extension = None
