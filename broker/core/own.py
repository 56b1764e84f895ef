"""This node's own certificate as its renewal worker last reported it."""

from dataclasses import dataclass

from broker.core.delivery_state import GOOD
from broker.core.renewal import BACKDATE_S, pull_at, renew_at
from broker.units import UnixSeconds
from broker.wire.ids import ServedState


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """What is live on disk; `known` is False until the worker has looked."""

    known: bool = False
    present: bool = False
    serial: str = ""
    not_before: UnixSeconds | None = None
    not_after: UnixSeconds | None = None
    state: ServedState = "unknown"
    detail: str = ""
    roots: tuple[str, ...] = ()
    """Pins of the roots in its chain file, that of the certificate itself first."""
    serving_until: UnixSeconds | None = None
    """End of what its services really have; of an older one only since this broker started."""

    def due_at(self, *, fraction: float, pulls: bool) -> UnixSeconds | None:
        """Return when this node should renew by itself; None while nothing is known.

        Args:
            fraction: Part of the lifetime to use first.
            pulls: The CA's sweep comes first and this node only steps in later.
        """
        if not self.known:
            return None
        if not self.present or self.not_before is None or self.not_after is None:
            return UnixSeconds(0)
        issued_at = UnixSeconds(self.not_before + BACKDATE_S)
        if self.not_after <= issued_at:
            return UnixSeconds(0)  # a certificate without a life, whoever reports it, is over
        due = renew_at(issued_at, self.not_after, fraction=fraction, jitter=0.0)
        return pull_at(due, issued_at, self.not_after) if pulls else due

    def serving_after(self, state: ServedState, not_after: UnixSeconds) -> UnixSeconds:
        """Return when what is served ends, once `state` was said of a certificate.

        Services that did not take it go on with an earlier one.
        """
        if state in GOOD or self.serving_until is None:
            return not_after
        return min(self.serving_until, not_after)
