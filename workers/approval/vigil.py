"""Keeps a lease while a decider thinks."""

from broker.clock import boottime_ms
from broker.errors import LeaseLostError, MeshError
from broker.units import Millis
from broker.wire.control import Ack
from broker.wire.work import ExtendLease, Lease
from workers.process import Desk

EXTEND_TIMEOUT_MS = 1_000


class LeaseVigil:
    """Waits on the desk's poller and extends the lease at a third of its time."""

    def __init__(self, desk: Desk, lease: Lease) -> None:
        self._desk = desk
        self._lease = lease
        self._every_ms = max(100, lease.ttl_ms // 3)
        self._due_ms = Millis(boottime_ms() + self._every_ms)

    def wait(self, ms: int, /, *fds: int) -> None:
        """Sleep until a descriptor is readable, a stop is asked, or the time is over.

        Raises:
            LeaseLostError: The question went to another worker.
        """
        now = boottime_ms()
        if now >= self._due_ms:
            self._extend()
            self._due_ms = Millis(now + self._every_ms)
        self._desk.wait(max(0, min(ms, self._due_ms - now)), *fds)

    def stopping(self) -> bool:
        """Return whether the process was asked to stop."""
        return self._desk.stopping()

    def _extend(self) -> None:
        # A broker that is away for a moment does not end the question: when the lease has ended
        # meanwhile, the next extension or the completion is refused.
        try:
            request = ExtendLease(lease_id=self._lease.lease_id, ttl_ms=self._lease.ttl_ms)
            self._desk.ask(request, Ack, timeout_ms=EXTEND_TIMEOUT_MS)
        except LeaseLostError:
            raise
        except MeshError:
            return
