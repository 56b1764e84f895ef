"""Asks a live port which certificate it serves.

Only the serial matters here: whether the service reloaded. The chain was verified before the
installation, and the port may belong to any program, so nothing is trusted by this connection.
"""

import re
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from cryptography import x509

from broker.clock import boottime_ms
from broker.units import Millis
from workers.renewal.hook import Pause
from workers.renewal.logic import ProbeResult

TIMEOUT_S: Final = 3.0
WAIT_MS: Final = 10_000
"""A reload takes time: how long a port may go on serving the old certificate."""

AGAIN_MS: Final = 250

_TARGET = re.compile(
    r"tcp://(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^\[\]:/]+)):(?P<port>\d{1,5})"
)

Look = Callable[[str, str], str]
"""From a target and a server name to the served serial, empty when nothing answers."""


class Prober:
    """Looks at all configured ports until they serve the new certificate or time is up."""

    def __init__(self, pause: Pause, *, wait_ms: int = WAIT_MS, look: Look | None = None) -> None:
        self._pause = pause
        self._wait_ms = wait_ms
        self._look = look or served_serial

    def probe(self, targets: Sequence[str], serial: str, name: str) -> tuple[ProbeResult, ...]:
        """Return what each target serves in the end.

        Args:
            targets: `tcp://HOST:PORT`.
            serial: The serial they should serve.
            name: Server name to ask for.
        """
        deadline_ms = Millis(boottime_ms() + self._wait_ms)
        return tuple(self._settled(target, serial, name, deadline_ms) for target in targets)

    def glance(self, targets: Sequence[str], serial: str, name: str) -> tuple[ProbeResult, ...]:
        """Return what each target serves right now."""
        return tuple(self._once(target, serial, name) for target in targets)

    def longest_ms(self, targets: Sequence[str]) -> int:
        """Return how long `probe` takes at most."""
        return self._wait_ms + len(targets) * int(2 * TIMEOUT_S * 1000) if targets else 0

    def _settled(self, target: str, serial: str, name: str, deadline_ms: Millis) -> ProbeResult:
        while True:
            result = self._once(target, serial, name)
            if result.served or boottime_ms() + AGAIN_MS > deadline_ms:
                return result
            self._pause.wait(AGAIN_MS)

    def _once(self, target: str, serial: str, name: str) -> ProbeResult:
        self._pause.announce(int(2 * TIMEOUT_S * 1000))
        return ProbeResult(target, self._look(target, name), serial)


def served_serial(target: str, name: str) -> str:
    """Return the serial (hex) that a port serves; empty when it does not answer with TLS."""
    match = _TARGET.fullmatch(target)
    if match is None:
        return ""
    place = (match["six"] or match["host"], int(match["port"]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(place, timeout=TIMEOUT_S) as connection,
            context.wrap_socket(connection, server_hostname=name) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
        return format(x509.load_der_x509_certificate(der or b"").serial_number, "x")
    except (OSError, ValueError, OverflowError):
        return ""
