"""A new enrollment secret that nobody has proven yet."""

from dataclasses import dataclass, field

from broker.units import Millis

TTL_MS = 600_000
"""Ten minutes: long enough to find the telephone, too short to be found forgotten on a screen."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """The secret and until when it may be proven, boot-time clock; never shown or logged."""

    secret: bytes = field(repr=False)
    until_ms: Millis

    def is_over(self, now_ms: Millis) -> bool:
        """Whether it is too late for a proof."""
        return now_ms >= self.until_ms
