"""Attempts per source: who guesses has to wait; nobody else does."""

import ipaddress
from collections import OrderedDict

from broker.errors import ThrottledError
from broker.units import Millis

IPV6_PREFIX = 64
"""One IPv6 host owns a whole /64, so that is one source."""
SOURCES_MAX = 4096
"""Sources remembered; the one quiet for longest is forgotten first."""


def source_key(source: str) -> str:
    """Return what counts as one source: an IPv4 address or an IPv6 /64."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


class AttemptLimiter:
    """Counts failed attempts of each source inside a window.

    Args:
        attempts: Failures allowed inside one window.
        window_ms: Length of the window, and of the wait once it is full.
    """

    def __init__(self, attempts: int, window_ms: int) -> None:
        self._attempts = attempts
        self._window_ms = window_ms
        self._failures: OrderedDict[str, list[Millis]] = OrderedDict()

    def check(self, source: str, now_ms: Millis) -> None:
        """Let the attempt pass.

        Raises:
            ThrottledError: Too many failures from this source; carries the wait.
        """
        recent = self._recent(source_key(source), now_ms)
        if len(recent) >= self._attempts:
            wait_ms = recent[0] + self._window_ms - now_ms
            raise ThrottledError(
                "too many failed attempts from this address",
                hint=f"wait {-(-wait_ms // 1000)} s",
                retry_after_ms=wait_ms,
            )

    def failed(self, source: str, now_ms: Millis) -> None:
        """Count one failed attempt."""
        source = source_key(source)
        recent = self._recent(source, now_ms)
        recent.append(now_ms)
        self._failures[source] = recent[-self._attempts :]
        self._failures.move_to_end(source)
        while len(self._failures) > SOURCES_MAX:
            self._failures.popitem(last=False)

    def _recent(self, source: str, now_ms: Millis) -> list[Millis]:
        return [at for at in self._failures.get(source, ()) if at + self._window_ms > now_ms]
