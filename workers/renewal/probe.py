"""Asks live ports which certificate they serve.

Any number of targets, `tcp://HOST:PORT` with a name, an IPv4 address or `[IPv6]`; each is asked for
this node's server name (SNI), so that the right one of several virtual hosts answers. TLS begins
with the first octet, at `postgresql://HOST:PORT` after the SSLRequest of that protocol. Other ports
that want STARTTLS first (SMTP, LDAP) do not answer here; their service's own command in a hook is
the way to look at them.

Only the serial matters: whether the service reloaded. The chain was verified before the
installation, and the port may belong to any program, so nothing is trusted by this connection, and
what a foreign certificate says of itself is cut short and made printable before it is shown.
"""

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from broker.clock import boottime_ms
from broker.runtime.target import Target, parse_target
from broker.units import Millis
from workers.leaf import PARSE_ERRORS, names_of
from workers.renewal.hook import Pause
from workers.renewal.logic import ProbeResult, printable
from workers.renewal.patience import StoppedError

TIMEOUT_S: Final = 3.0
WAIT_MS: Final = 10_000
"""A reload takes time: how long a port may go on serving the old certificate."""

AGAIN_MS: Final = 250

UNREADABLE: tuple[type[Exception], ...] = (OSError, *PARSE_ERRORS)
SSL_REQUEST: Final = (8).to_bytes(4) + (80_877_103).to_bytes(4)
"""Source: PostgreSQL documentation, Message Formats: SSLRequest; a server with TLS answers `S`."""

NAME_LENGTH_MAX: Final = 60


@dataclass(frozen=True, slots=True)
class Seen:
    """What a port showed: `serial` is empty when nothing answered.

    `stranger` says whose certificate it is when that is not one for the name that was asked for.
    """

    serial: str = ""
    stranger: str = ""


Look = Callable[[str, str], Seen]
"""From a target and a server name to what is served there."""


class Prober:
    """Looks at all configured ports until they serve the new certificate or time is up."""

    def __init__(self, pause: Pause, *, wait_ms: int = WAIT_MS, look: Look | None = None) -> None:
        self._pause = pause
        self._wait_ms = wait_ms
        self._look = look or look_at

    def probe(self, targets: Sequence[str], serial: str, name: str) -> tuple[ProbeResult, ...]:
        """Return what each target serves in the end.

        Args:
            targets: As `[renewal] probe` has them.
            serial: The serial they should serve.
            name: Server name to ask for.

        Raises:
            StoppedError: A stop was asked while a port still served something else.
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
            if self._pause.stopping():
                raise StoppedError
            self._pause.wait(AGAIN_MS)

    def _once(self, target: str, serial: str, name: str) -> ProbeResult:
        self._pause.announce(int(2 * TIMEOUT_S * 1000))
        seen = self._look(target, name)
        return ProbeResult(target, seen.serial, serial, seen.stranger)


def look_at(target: str, name: str) -> Seen:
    """Return what a port shows to who asks for `name`; nothing when it does not answer with TLS."""
    try:
        place = parse_target(target)
    except ValueError:
        return Seen()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            _connected(place) as connection,
            context.wrap_socket(connection, server_hostname=name) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
        return _seen(x509.load_der_x509_certificate(der or b""), name)
    except UNREADABLE:
        return Seen()


def _connected(place: Target) -> socket.socket:
    """Return a connection on which TLS comes next."""
    connection = socket.create_connection((place.host, place.port), timeout=TIMEOUT_S)
    try:
        if place.scheme == "postgresql":
            connection.sendall(SSL_REQUEST)
            if connection.recv(1) != b"S":
                raise ConnectionRefusedError("the server offers no TLS")
    except OSError:
        connection.close()
        raise
    return connection


def _seen(leaf: x509.Certificate, name: str) -> Seen:
    serial = format(leaf.serial_number, "x")
    if name in names_of(leaf):
        return Seen(serial)
    subject, issuer = _printable(leaf.subject), _printable(leaf.issuer)
    return Seen(serial, f"subject {subject}, issuer {issuer}")


def _printable(name: x509.Name) -> str:
    return printable(name.rfc4514_string())[:NAME_LENGTH_MAX] or "nobody"
