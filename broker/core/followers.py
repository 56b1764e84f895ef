"""What standbys have durable, and so which head a primary may show.

A head that only one disk knows would stop every standby from taking over when that disk is gone:
nobody else could ever be caught up with it. So while standbys live, only a head that one of them
has durable is shown. Without any, the primary's own head is all there is.
"""

from dataclasses import dataclass

from broker.units import Millis


@dataclass(frozen=True, slots=True)
class Follower:
    """A standby that fetches the journal: what it has durable, and when it last said so."""

    sequence: int
    heard_ms: Millis


class Followers:
    """The standbys of one primary in one term.

    Args:
        grace_ms: How long a standby that says nothing still counts.
        since_ms: When this primary began to serve.
        shown: The newest row of the journal it took over that anybody was shown.
    """

    def __init__(self, grace_ms: int, since_ms: Millis, shown: int = 0) -> None:
        self._grace_ms = grace_ms
        self._since_ms = since_ms
        self._shown = shown
        self._all: dict[str, Follower] = {}

    def note(self, host: str, sequence: int, now_ms: Millis) -> None:
        """Remember what `host` has on its own disk."""
        self._all[host] = Follower(sequence, now_ms)

    def shown(self, own: int, now_ms: Millis, *, expected: bool) -> int:
        """Return the newest row whose head may be shown; it never goes back.

        Args:
            own: The newest row of this journal.
            now_ms: Boot-time clock.
            expected: Whether a standby was heard lately. A primary that has just begun waits for
                it one grace period: it will follow in a moment.
        """
        durable = [f.sequence for f in self._all.values() if self._lives(f, now_ms)]
        if durable:
            self._shown = max(self._shown, min(own, max(durable)))
        elif not expected or now_ms - self._since_ms > self._grace_ms:
            self._shown = max(self._shown, own)
        return self._shown

    def sequence_of(self, host: str) -> int:
        """Return the newest row that `host` has said to have, 0 when it said nothing."""
        follower = self._all.get(host)
        return follower.sequence if follower else 0

    def durable_on(self, sequence: int, now_ms: Millis) -> tuple[int, int]:
        """Return how many standbys live, and how many of them have this row on disk."""
        living = [f for f in self._all.values() if self._lives(f, now_ms)]
        return len(living), sum(1 for f in living if f.sequence >= sequence)

    def _lives(self, follower: Follower, now_ms: Millis) -> bool:
        return now_ms - follower.heard_ms <= self._grace_ms
