"""How it stands with a host's certificate: one word from what is known of it. Sans-IO.

The order is that of harm: a certificate that is over goes before a host that is silent, and that
before what the host last said of itself. A host says what it serves and never when that ends: the
end is that of the certificate of this serial, as the CA issued it.
"""

from dataclasses import dataclass

from broker.units import UnixSeconds
from broker.wire.ids import DeliveryState, ServedState

GOOD: frozenset[ServedState] = frozenset({"served", "installed"})
DELIVERY_FRACTION = 0.1
DELIVERY_S_MAX = 600
"""As long as a lease at most: a delivery that takes longer has lost its worker."""


@dataclass(frozen=True, slots=True)
class Loop:
    """What is known of one host's certificate.

    Attributes:
        serial: Of the newest certificate; empty before the first.
        issued_at: When that was signed.
        not_after: When that ends.
        word: What the host said last.
        served_serial: Of which certificate it said so.
        serving_until: When the certificate ends that the host really serves.
        seen_at: When it was heard last; None when never.
        silent_s: After how long without a word it counts as away.
    """

    serial: str
    issued_at: UnixSeconds | None
    not_after: UnixSeconds | None
    word: ServedState
    served_serial: str
    serving_until: UnixSeconds | None
    seen_at: UnixSeconds | None
    silent_s: int


def delivery_state(loop: Loop, now: UnixSeconds) -> DeliveryState:
    """Return the one word for a host's certificate."""
    if loop.serving_until is not None and loop.serving_until <= now:
        return "expired"
    if _is_silent(loop, now):
        return "away"
    if loop.word in GOOD and _is_behind(loop, now):
        return "stale"
    return loop.word


def _is_silent(loop: Loop, now: UnixSeconds) -> bool:
    """Whether the host has not been heard lately; one that never spoke is new, not away."""
    if loop.seen_at is None:
        return loop.word != "unknown"
    return now - loop.seen_at > loop.silent_s


def _is_behind(loop: Loop, now: UnixSeconds) -> bool:
    """Whether a newer certificate than the one it serves has had the time to arrive.

    Until then a delivery is under way, and what the host said of the one before is still true.
    """
    if loop.issued_at is None or loop.not_after is None or loop.served_serial == loop.serial:
        return False
    return now > loop.issued_at + delivery_s(loop.issued_at, loop.not_after)


def delivery_s(issued_at: UnixSeconds, not_after: UnixSeconds) -> int:
    """Return how long a delivery may take: a tenth of the life, ten minutes at the most."""
    return min(DELIVERY_S_MAX, int((not_after - issued_at) * DELIVERY_FRACTION))
