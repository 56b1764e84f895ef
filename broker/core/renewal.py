"""When certificates are due, and when to try again after a failure."""

from dataclasses import dataclass

from broker.units import Millis, UnixSeconds

BACKDATE_S = 60
"""notBefore lies this far in the past, so that a peer whose clock is late accepts at once."""

PULL_DELAY_FRACTION = 0.05
"""A member waits this part of the lifetime for the CA's sweep before it pulls by itself."""

LEFT_SHARE = 3
"""A failing item waits at most for this part of the life that its certificate has left."""
SOONEST_MS = 1_000
"""No failing item is tried faster than this for that reason."""


def renew_at(
    issued_at: UnixSeconds, not_after: UnixSeconds, *, fraction: float, jitter: float
) -> UnixSeconds:
    """Return the moment from which a certificate should be renewed.

    Args:
        issued_at: Start of useful life (notBefore without the backdating).
        not_after: Last second of validity (RFC 5280 4.1.2.5).
        fraction: Part of the lifetime to use first, 0 < fraction < 1.
        jitter: 0 <= jitter < 1, moves the moment earlier by up to that part of what remains,
            so that machines enrolled together do not renew together. Drawn by the caller.

    Raises:
        ValueError: Empty lifetime or an argument out of range.
    """
    lifetime_s = not_after - issued_at
    if lifetime_s <= 0 or not 0.0 < fraction < 1.0 or not 0.0 <= jitter < 1.0:
        raise ValueError(f"lifetime_s={lifetime_s} fraction={fraction} jitter={jitter}")
    used_s = lifetime_s * fraction
    return UnixSeconds(int(issued_at + used_s - (lifetime_s - used_s) * jitter))


def pull_at(due_at: UnixSeconds, not_before: UnixSeconds, not_after: UnixSeconds) -> UnixSeconds:
    """Return when a member stops waiting for the CA's sweep and pulls."""
    return UnixSeconds(int(due_at + (not_after - not_before) * PULL_DELAY_FRACTION))


@dataclass(frozen=True, slots=True)
class Backoff:
    """How often an item failed and when it may be tried again."""

    failures: int = 0
    not_before_ms: int = 0

    def after_failure(
        self, now_ms: Millis, *, min_ms: int, max_ms: int, left_s: int = 0
    ) -> "Backoff":
        """Return the state after one more failure: doubling from `min_ms` up to `max_ms`.

        Args:
            now_ms: Boot-time clock.
            min_ms: Wait after the first failure.
            max_ms: Longest wait.
            left_s: What is left of the certificate. No wait takes more than a third of it: the
                attempts come closer again before the end. 0 or less: nothing is left to save.
        """
        wait_ms = min(min_ms << min(self.failures, 20), max_ms)
        if left_s > 0:
            wait_ms = min(wait_ms, max(left_s * 1000 // LEFT_SHARE, SOONEST_MS))
        return Backoff(self.failures + 1, now_ms + wait_ms)

    def is_over(self, now_ms: Millis) -> bool:
        """Whether the item may be tried again."""
        return now_ms >= self.not_before_ms
