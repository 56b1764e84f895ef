"""Presence: when a member was last heard and what it serves. Not history, never journaled."""

from collections.abc import Iterable

from broker.units import UnixSeconds
from broker.wire.base import Body
from broker.wire.ids import Hex, ServedState

ENFORCING_FRESH_S = 60
"""A heartbeat older than this says nothing about which bundle a member enforces now."""

SKEWS_KEPT = 64
SKEWS_NEEDED = 3


class Presence(Body, frozen=True):
    """The newest heartbeat of one member."""

    seen_at: UnixSeconds
    served_serial: Hex
    served: ServedState
    bundle_sequence: int
    skew_s: int


class PresenceTable:
    """Presence by member id, with the set of rows not yet flushed."""

    def __init__(self, rows: dict[str, Presence]) -> None:
        self._rows = rows
        self._dirty: set[str] = set()
        self._skews: dict[str, tuple[UnixSeconds, int]] = {}

    def note(self, member_id: str, presence: Presence) -> None:
        """Keep the newest heartbeat of a member."""
        self._rows[member_id] = presence
        self._dirty.add(member_id)
        self._skews.pop(member_id, None)
        self._skews[member_id] = (presence.seen_at, presence.skew_s)
        if len(self._skews) > SKEWS_KEPT:
            del self._skews[next(iter(self._skews))]

    def of(self, member_id: str) -> Presence | None:
        """Return what is known of a member."""
        return self._rows.get(member_id)

    def clock_off_s(self, now: UnixSeconds) -> int:
        """Return by how much this node's clock differs from the others', the median of members.

        Positive: this one is behind. Each member counts once, so one with a wrong clock moves
        nothing; with too few members to tell the answer is 0.
        """
        seen = self._skews.values()
        late = sorted(skew for at, skew in seen if 0 <= now - at <= ENFORCING_FRESH_S)
        return late[len(late) // 2] if len(late) >= SKEWS_NEEDED else 0

    def take_dirty(self) -> dict[str, Presence]:
        """Return and forget what changed since the last flush."""
        rows = {member_id: self._rows[member_id] for member_id in self._dirty}
        self._dirty.clear()
        return rows

    def mark_dirty(self, member_ids: Iterable[str]) -> None:
        """Flush these rows again: the last attempt was not committed."""
        self._dirty.update(member_ids)

    def enforcing(self, bundle_sequence: int, now: UnixSeconds) -> int:
        """Count members that lately said they hold this bundle or a newer one."""
        return sum(
            1
            for row in self._rows.values()
            if row.bundle_sequence >= bundle_sequence and now - row.seen_at <= ENFORCING_FRESH_S
        )
