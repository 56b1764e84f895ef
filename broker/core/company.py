"""Whom a node has heard lately, and who said that it could not take over."""

from collections.abc import Set as AbstractSet

from broker.units import Millis
from broker.wire.claims import Claim

HEARD_MAX = 100_000
COMPANY_MAX = 1_000
"""Enough to count any number of witnesses; a large mesh is not counted at every tick."""


class Company:
    """Authenticated senders by host, the latest last."""

    def __init__(self, grace_ms: int) -> None:
        self._grace_ms = grace_ms
        self._heard: dict[str, Millis] = {}
        self._excused: dict[str, Millis] = {}

    def note(self, host: str, now_ms: Millis) -> None:
        """Remember that `host` was heard."""
        self._heard.pop(host, None)
        self._heard[host] = now_ms
        if len(self._heard) > HEARD_MAX:
            del self._heard[next(iter(self._heard))]

    def note_claim(self, claim: Claim, now_ms: Millis) -> None:
        """Remember whether a key holder could take over."""
        if claim.promotable or claim.role == "primary":
            self._excused.pop(claim.host, None)
        else:
            self._excused[claim.host] = now_ms

    def heard_ms(self, host: str) -> Millis | None:
        """When `host` was last heard."""
        return self._heard.get(host)

    def heard_since(self, host: str, since_ms: Millis) -> bool:
        """Whether `host` was heard at or after `since_ms`."""
        heard_ms = self._heard.get(host)
        return heard_ms is not None and heard_ms >= since_ms

    def present(self, now_ms: Millis) -> frozenset[str]:
        """Return the nodes heard within the last grace period, the latest of very many."""
        found: set[str] = set()
        for host, heard_ms in reversed(self._heard.items()):
            if now_ms - heard_ms > self._grace_ms or len(found) >= COMPANY_MAX:
                break
            found.add(host)
        return frozenset(found)

    def is_excused(self, host: str, now_ms: Millis) -> bool:
        """Whether `host` said within the last grace period that it could not take over."""
        said_ms = self._excused.get(host)
        return said_ms is not None and now_ms - said_ms < self._grace_ms

    def before(self, host: str, others: AbstractSet[str], now_ms: Millis) -> int:
        """Return how many of `others` have a better rank than `host` and might still take over."""
        return sum(1 for other in others if other < host and not self.is_excused(other, now_ms))
