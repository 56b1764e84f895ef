"""What one direction between two hosts does to the frames on it; pure, seeded, `now` pushed in."""

import random
from typing import Annotated

import msgspec
from msgspec import Meta

BACKLOG_MS_MAX = 500
"""A queue in front of a slow link this long is full: what comes then is dropped."""

Fraction = Annotated[float, Meta(ge=0.0, le=1.0)]
Span = Annotated[float, Meta(ge=0.0)]


class Quality(msgspec.Struct, frozen=True):
    """How bad a link is; the default is perfect.

    Every frame waits `delay_ms` and a random part of `jitter_ms`, so jitter also reorders.
    `rate_kbit` 0 is no limit. With `no_multicast` only what is addressed to one host, or to all,
    gets through, as behind many an access point.
    """

    cut: bool = False
    no_multicast: bool = False
    loss: Fraction = 0.0
    delay_ms: Span = 0.0
    jitter_ms: Span = 0.0
    duplicate: Fraction = 0.0
    rate_kbit: Span = 0.0


PERFECT = Quality()
CUT = Quality(cut=True)


class Link:
    """One direction; the same seed and the same frames give the same fate."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)
        self._free_at_ms = 0.0
        self.quality = PERFECT
        self.passed = 0
        self.dropped = 0

    def admit(self, size_bytes: int, now_ms: float) -> tuple[float, ...]:
        """Return when copies of a frame arrive, as delays from now: none, one or two.

        A dropped frame is counted here, a passed one by whoever delivers it.
        """
        quality = self.quality
        if quality is PERFECT:
            return (0.0,)
        if quality.cut or self._random.random() < quality.loss:
            self.dropped += 1
            return ()
        queued_ms = self._transmit(size_bytes, now_ms)
        if queued_ms > BACKLOG_MS_MAX:
            self.dropped += 1
            return ()
        copies = 2 if self._random.random() < quality.duplicate else 1
        return tuple(queued_ms + self._travel_ms() for _ in range(copies))

    def _transmit(self, size_bytes: int, now_ms: float) -> float:
        """Return the wait until the frame's last bit is on a link of limited rate."""
        if not self.quality.rate_kbit:
            return 0.0
        start_ms = max(now_ms, self._free_at_ms)
        end_ms = start_ms + size_bytes * 8 / self.quality.rate_kbit
        if end_ms - now_ms <= BACKLOG_MS_MAX:
            self._free_at_ms = end_ms
        return end_ms - now_ms

    def _travel_ms(self) -> float:
        return self.quality.delay_ms + self._random.random() * self.quality.jitter_ms
