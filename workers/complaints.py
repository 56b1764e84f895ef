"""Refusals at a door, counted, and said at a bounded rate: strangers must not write the log.

One line per source and minute, with how many there were; sources beyond a bound share one line.
"""

from collections import OrderedDict
from typing import NamedTuple

EVERY_S = 60.0
SOURCES_MAX = 32
"""Sources that get a line of their own in a minute; a subnet of 254 would be a log of its own."""
OTHERS = "others"


class Complaint(NamedTuple):
    """What to say now: `times` refusals of `source` since the last line about it."""

    source: str
    times: int


class Complaints:
    """Counts the refusals of one kind by source and says when one is to be logged."""

    def __init__(self) -> None:
        self._said: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self.total = 0

    def note(self, source: str, now: float) -> Complaint | None:
        """Count one refusal; return what to log about its source, None when it is too early."""
        self.total += 1
        if source not in self._said:
            self._forget_over(now)
            if len(self._said) >= SOURCES_MAX:
                source = OTHERS
        said_at, count = self._said.get(source, (float("-inf"), 0))
        if now - said_at < EVERY_S:
            self._said[source] = (said_at, count + 1)
            return None
        self._said.pop(source, None)
        self._said[source] = (now, 0)
        return Complaint(source, count + 1)

    def _forget_over(self, now: float) -> None:
        """Drop sources whose minute is over; they were put in at the end when it began."""
        while self._said:
            source, (said_at, _count) = next(iter(self._said.items()))
            if now - said_at < EVERY_S:
                return
            del self._said[source]
