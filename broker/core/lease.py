"""Leases: each item of work is held by at most one worker, with a fencing number.

Invariants: numbers only grow, also over restarts (the high part is the broker's boot number); a
number is good until it expires, is completed, released, or its holder is lost; nothing else ends
it; every later use of it is refused.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace

from broker.errors import LeaseLostError
from broker.units import Millis
from broker.wire.work import WorkItem

BOOT_SHIFT = 40
"""Low bits of a number: a trillion leases in one broker lifetime."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One live lease; `key` names the item, `holder` the worker's routing identity."""

    lease_id: int
    key: Hashable
    item: WorkItem
    holder: bytes
    granted_ms: Millis
    expires_ms: Millis


class LeaseTable:
    """All live leases of one broker lifetime.

    Args:
        boot: Durable count of broker starts, larger than ever before.
    """

    def __init__(self, boot: int) -> None:
        self._next = (boot << BOOT_SHIFT) + 1
        self._grants: dict[int, Grant] = {}
        self._held: dict[Hashable, int] = {}
        self._closing: set[int] = set()

    def __len__(self) -> int:
        return len(self._grants)

    @property
    def newest(self) -> int:
        """Number of the lease that was granted last."""
        return self._next - 1

    def is_held(self, key: Hashable) -> bool:
        """Whether somebody holds the item."""
        return key in self._held

    def grant(
        self, key: Hashable, item: WorkItem, holder: bytes, *, now_ms: Millis, ttl_ms: int
    ) -> Grant:
        """Give the item to `holder` until `now_ms + ttl_ms`."""
        assert key not in self._held, f"{key!r} is held already"
        lease = Grant(self._next, key, item, holder, now_ms, Millis(now_ms + ttl_ms))
        self._next += 1
        self._grants[lease.lease_id] = lease
        self._held[key] = lease.lease_id
        return lease

    def live(self, lease_id: int, holder: bytes, now_ms: Millis) -> Grant:
        """Return the grant if `holder` still holds it.

        Raises:
            LeaseLostError: Unknown, expired, or somebody else's number.
        """
        lease = self._grants.get(lease_id)
        if (
            lease is None
            or lease.holder != holder
            or now_ms >= lease.expires_ms
            or lease_id in self._closing
        ):
            raise LeaseLostError(
                f"lease {lease_id} is over; the item may belong to another worker now",
                hint="drop the work and ask for a new lease",
            )
        return lease

    def extend(self, lease_id: int, holder: bytes, *, now_ms: Millis, ttl_ms: int) -> Grant:
        """Move the end of a live lease; raises as `live`."""
        lease = replace(self.live(lease_id, holder, now_ms), expires_ms=Millis(now_ms + ttl_ms))
        self._grants[lease_id] = lease
        return lease

    def end(self, lease_id: int, holder: bytes, now_ms: Millis) -> Grant:
        """Complete or release a live lease and return what it was; raises as `live`."""
        lease = self.live(lease_id, holder, now_ms)
        self.drop(lease)
        return lease

    def close(self, lease_id: int, holder: bytes, now_ms: Millis) -> Grant:
        """Accept the last use of a number; the item stays taken until `drop` or `reopen`.

        Raises:
            LeaseLostError: As `live`; also when the number was used up before.
        """
        lease = self.live(lease_id, holder, now_ms)
        self._closing.add(lease_id)
        return lease

    def reopen(self, lease_id: int) -> None:
        """Undo a `close` whose drain was not committed."""
        self._closing.discard(lease_id)

    def drop(self, lease: Grant) -> None:
        """Forget a lease; one that is gone already is no trouble."""
        self._closing.discard(lease.lease_id)
        self._grants.pop(lease.lease_id, None)
        if self._held.get(lease.key) == lease.lease_id:
            del self._held[lease.key]

    def expired(self, now_ms: Millis) -> tuple[Grant, ...]:
        """Drop and return every lease whose time is over."""
        return self._drop_all(
            lease for lease in self._grants.values() if now_ms >= lease.expires_ms
        )

    def lost_with(self, holder: bytes) -> tuple[Grant, ...]:
        """Drop and return every lease of a worker that is gone."""
        return self._drop_all(lease for lease in self._grants.values() if lease.holder == holder)

    def withdraw(self, kinds: tuple[type, ...]) -> tuple[Grant, ...]:
        """Drop and return every lease on items of these kinds; their numbers are used up."""
        return self._drop_all(
            lease for lease in self._grants.values() if isinstance(lease.item, kinds)
        )

    def _drop_all(self, leases: Iterable[Grant]) -> tuple[Grant, ...]:
        gone = tuple(leases)
        for lease in gone:
            self.drop(lease)
        return gone
