"""A notice on its way: who took it, who did not, when to try again and when to give up."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from broker.units import UnixSeconds
from broker.wire.notice import Notice, NoticeLine

NOTICES_MAX = 256
"""Kept in all: what waits, and behind it what was sent or dropped."""
TRY_MS_MIN = 30_000
TRY_MS_MAX = 3_600_000
PAUSE_MS = 30_000
"""How long a target that failed is left alone with everything else that waits for it."""
GIVE_UP_S = 86_400
ERROR_LENGTH_MAX = 300


Try = tuple[int, str]
"""How often a notice was tried at a target that has not taken it, and what went wrong last."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A notice in the outbox; `tries` are the targets that still wait for it."""

    number: int
    notice: Notice
    state: str
    attempts: int
    tries: Mapping[str, Try]

    @property
    def line(self) -> NoticeLine:
        """How it is shown."""
        waiting = tuple(self.tries)
        errors = tuple(self.tries[name][1] for name in waiting)
        said = "; ".join(f"{n}: {e}" for n, e in zip(waiting, errors, strict=True) if e)
        return NoticeLine(
            notice=self.notice,
            state=self.state,
            attempts=self.attempts,
            waiting=waiting,
            last_error=said[:1024],
            errors=errors,
        )

    def after(self, taken: Collection[str], tried: Collection[str], error: str) -> "Parcel":
        """Return the parcel after an attempt at the targets in `tried`."""
        left = {
            name: (known[0] + 1, error[:ERROR_LENGTH_MAX] or "not taken")
            if name in tried
            else known
            for name, known in self.tries.items()
            if name not in taken
        }
        state = "waiting" if left else "sent"
        return replace(self, attempts=self.attempts + 1, tries=left, state=state)

    def without(self, gone: Collection[str]) -> "Parcel":
        """Return the parcel without targets that the settings no longer name."""
        left = {name: known for name, known in self.tries.items() if name not in gone}
        return replace(self, tries=left, state="waiting" if left else "dropped")

    def is_hopeless(self, now: UnixSeconds) -> bool:
        """Whether it is too old and was tried; one that was never tried still gets its chance.

        A laptop that slept for two days has not tried for two days.
        """
        return self.attempts > 0 and now - self.notice.at >= GIVE_UP_S


def wait_ms(failures: int) -> int:
    """Return how long to wait after so many failures in a row: 30 s, doubling up to an hour."""
    return min(TRY_MS_MIN << min(max(0, failures - 1), 20), TRY_MS_MAX)
