"""Presence: when a member was last heard and what it serves. Not history, never journaled."""

from collections.abc import Iterable, KeysView
from dataclasses import dataclass

from broker.units import UnixSeconds
from broker.wire.base import Body
from broker.wire.ids import Hex, ServedState

SKEWS_KEPT = 64
SKEWS_NEEDED = 3
SKEW_FRESH_S = 60
"""A heartbeat older than this says nothing about whose clock is right now."""


class Presence(Body, frozen=True):
    """The newest heartbeat of one member."""

    seen_at: UnixSeconds
    served_serial: Hex
    served: ServedState
    bundle_sequence: int
    skew_s: int
    trusts: tuple[Hex, ...] = ()
    bundle_term: int = 0


@dataclass(frozen=True, slots=True)
class Reach:
    """Who holds a bundle: `lacking` were heard lately without it, `away` were not heard."""

    enforcing: int
    lacking: tuple[str, ...]
    away: tuple[str, ...]


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

    def ids(self) -> KeysView[str]:
        """Return of whom anything is known."""
        return self._rows.keys()

    def forget(self, member_ids: Iterable[str]) -> None:
        """Drop what is known of members that are gone."""
        for member_id in member_ids:
            self._rows.pop(member_id, None)
            self._skews.pop(member_id, None)
            self._dirty.discard(member_id)

    def clock_off_s(self, now: UnixSeconds) -> int:
        """Return by how much this node's clock differs from the others', the median of members.

        Positive: this one is behind. Each member counts once, so one with a wrong clock moves
        nothing; with too few members to tell the answer is 0.
        """
        late = sorted(self.skews(now))
        return late[len(late) // 2] if len(late) >= SKEWS_NEEDED else 0

    def skews(self, now: UnixSeconds) -> list[int]:
        """Return by how much the clocks of members heard lately are ahead of this one."""
        return [skew for at, skew in self._skews.values() if 0 <= now - at <= SKEW_FRESH_S]

    def take_dirty(self) -> dict[str, Presence]:
        """Return and forget what changed since the last flush."""
        rows = {member_id: self._rows[member_id] for member_id in self._dirty}
        self._dirty.clear()
        return rows

    def mark_dirty(self, member_ids: Iterable[str]) -> None:
        """Flush these rows again: the last attempt was not committed."""
        self._dirty.update(member_ids)

    def reach(
        self,
        members: Iterable[tuple[str, str]],
        version: tuple[int, int],
        now: UnixSeconds,
        fresh_s: int,
    ) -> Reach:
        """Return which members hold a bundle of this version or a newer one, as they last said.

        Args:
            members: (member_id, host) of those that count.
            version: (term, sequence): a bundle of an earlier term has not seen this journal's
                rows, whatever its number.
            now: Wall time.
            fresh_s: A heartbeat older than this says nothing about now.
        """
        enforcing, lacking, away = 0, [], []
        for member_id, host in members:
            row = self._rows.get(member_id)
            if row is None or now - row.seen_at > fresh_s:
                away.append(host)
            elif (row.bundle_term, row.bundle_sequence) >= version:
                enforcing += 1
            else:
                lacking.append(host)
        return Reach(enforcing, tuple(lacking), tuple(away))
