"""A node's own absences: after one it trusts neither its role nor its ears.

Time between two ticks is the evidence, on a clock that runs on while a machine is suspended.
"""

from collections.abc import Iterable

from broker.core.company import Company
from broker.core.observation import Timing
from broker.units import Millis


class Fence:
    """When this node last ticked, and since when it asks around.

    Args:
        timing: Intervals.
        restored: It was restored from a backup: members too may know what was written after that,
            so each of them gets its turn before it serves.
        now_ms: Boot-time clock.
    """

    def __init__(self, timing: Timing, now_ms: Millis, *, restored: bool) -> None:
        self._timing = timing
        self._restored = restored
        self._tick_ms = self._asking_ms = now_ms
        self._rounds = 0

    def gap_ms(self, now_ms: Millis) -> int:
        """Return how long ago the last tick was."""
        return now_ms - self._tick_ms

    def was_away(self, now_ms: Millis) -> bool:
        """Whether somebody may have taken over since the last tick."""
        return self.gap_ms(now_ms) > self._timing.fence_ms

    def tick(self, now_ms: Millis) -> None:
        """Note that this node is awake."""
        self._tick_ms = now_ms

    def ask(self, now_ms: Millis) -> None:
        """Begin to ask around."""
        self._asking_ms = now_ms
        self._rounds = 0

    def probed(self) -> None:
        """Note the end of a round of probes; the first may have begun before the asking."""
        self._rounds += 1

    def trust(self) -> None:
        """Forget the backup: this node has a term of its own, or no role."""
        self._restored = False

    def has_asked(
        self, rivals: Iterable[str], others: int, company: Company, now_ms: Millis
    ) -> bool:
        """Return whether every other key holder answered, or had long enough.

        What was heard within the first tick may have waited in a buffer since before the pause.
        Patience counts only while probes go out: on a machine that is still starting they come
        late, and silence is then no answer.
        """
        timing = self._timing
        patience_ms = timing.grace_ms if self._restored else timing.settle_ms
        waited_ms = now_ms - self._asking_ms
        if waited_ms >= patience_ms and (self._rounds > 1 or waited_ms >= timing.grace_ms):
            return True
        if self._restored:
            return not others
        since_ms = Millis(self._asking_ms + timing.tick_ms)
        return all(company.heard_since(host, since_ms) for host in rivals)
