"""Whether this node's wall clock can be believed: what its peers say, and what it did itself.

Peers are believed before the clock's own past: members tell the time with every beat, over verified
TLS, and one of them alone can neither stop a CA nor clear it against another. A clock that jumped
while this broker ran is doubted until peers agree with it, or until a person starts the broker
again: a far jump ends most members' certificates, and then nobody is left to say anything.

What nobody can notice: a clock that was already wrong when the machine started, and a mesh in which
no member can be heard. The CA's own days bound the harm then: nothing is signed before its
first, and nothing outlives its last.
"""

from dataclasses import dataclass
from statistics import median_low

from broker.core.spans import span_down
from broker.units import Millis, UnixSeconds

WARN_S = 300
REFUSE_S = 86_400
SETTLING_MS = 900_000
"""A machine without a battery learns the time in its first minutes; that jump is a correction."""
STEADY_S = 2
"""Less than that is how clocks are kept right, and no jump; it must not add up to one."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """By how much this clock differs from that of members heard lately; positive: it is behind."""

    off_s: int
    members: int

    @property
    def condemns(self) -> bool:
        """Whether more than one member says that this clock is absurd."""
        return self.members > 1 and abs(self.off_s) > REFUSE_S

    @property
    def clears(self) -> bool:
        """Whether somebody says that this clock is right enough."""
        return self.members > 0 and abs(self.off_s) <= REFUSE_S


SILENCE = Opinion(0, 0)


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why the clock is not believed, and by how much it seems to be wrong."""

    off_s: int
    why: str

    @property
    def is_absurd(self) -> bool:
        """Whether nothing may be signed with such a clock."""
        return abs(self.off_s) > REFUSE_S


class ClockWatch:
    """Remembers what the wall clock showed at a moment of the boot-time clock."""

    def __init__(self) -> None:
        self._wall = UnixSeconds(0)
        self._boot = Millis(0)
        self._begun = False

    def look(self, now: UnixSeconds, now_ms: Millis, heard: Opinion) -> None:
        """Follow the clock while there is no reason to doubt it; called about once a second."""
        steady = self._begun and abs(self.jumped_s(now, now_ms)) <= STEADY_S
        settling = now_ms < SETTLING_MS
        if not self._begun or steady or settling or heard.clears:
            self._wall, self._boot, self._begun = now, now_ms, True

    def jumped_s(self, now: UnixSeconds, now_ms: Millis) -> int:
        """Return how far the wall clock went besides the time that passed; positive: forward."""
        if not self._begun:
            return 0
        return int(now - self._wall - (now_ms - self._boot) // 1000)

    def doubt(self, now: UnixSeconds, now_ms: Millis, heard: Opinion) -> Doubt | None:
        """Return why this clock should not be believed, None when there is no reason."""
        many = f"{heard.members} members" if heard.members > 1 else "one member"
        way = "behind" if heard.off_s > 0 else "ahead of"
        said = f"it is {span_down(abs(heard.off_s))} {way} {many}"
        if heard.condemns:
            return Doubt(heard.off_s, said)
        jumped_s = self.jumped_s(now, now_ms)
        if not heard.clears and abs(jumped_s) > WARN_S:
            way = "forward" if jumped_s > 0 else "back"
            return Doubt(
                -jumped_s, f"it jumped {way} by {span_down(abs(jumped_s))} while this broker ran"
            )
        if abs(heard.off_s) > WARN_S:
            # One member alone may say enough to warn, never enough to stop a CA.
            return Doubt(max(-REFUSE_S, min(heard.off_s, REFUSE_S)), said)
        return None


def opinion_of(skews: list[int]) -> Opinion:
    """Return what members say together; each counts once, and this node's own clock among two.

    The median, so that one with a wrong clock moves nothing as soon as there is a second.
    """
    if not skews:
        return SILENCE
    votes = [*skews, 0] if len(skews) == 2 else skews  # noqa: PLR2004 (with two, nobody outvotes)
    return Opinion(int(median_low(votes)), len(skews))
