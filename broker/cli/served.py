"""Certificates as they are: the one a port serves, the one on this disk."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from broker.errors import MalformedMessageError, PeerUnreachableError

PARSE_ERRORS: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What cryptography raises on hostile or unusual DER; it is not one family."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """What matters of one certificate."""

    serial: str
    not_before: int
    not_after: int
    names: tuple[str, ...]

    def renew_at(self, fraction: float, lifetime_s: int) -> int:
        """Return when it is due: after `fraction` of its lifetime, counted from its end.

        `lifetime_s` is what the policy promises. A certificate is dated back a little for clocks
        that lag, so its own dates alone would make a short-lived one due too early.
        """
        lived_s = min(lifetime_s, self.not_after - self.not_before + 1)
        return self.not_after - int(lived_s * (1 - fraction))


def leaf_of(certificate: x509.Certificate) -> Leaf:
    """Return what matters of a parsed certificate."""
    return Leaf(
        serial=f"{certificate.serial_number:x}",
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        names=_names(certificate),
    )


def read_leaf(path: Path) -> Leaf:
    """Return the first certificate of a PEM file.

    Raises:
        FileNotFoundError: There is no such file.
        MalformedMessageError: It holds no certificate.
    """
    try:
        return leaf_of(x509.load_pem_x509_certificate(path.read_bytes()))
    except PARSE_ERRORS as error:
        raise MalformedMessageError(f"{path} holds no certificate: {error}") from None


def served_leaf(address: str, port: int, server_name: str, timeout_s: float) -> Leaf:
    """Return the certificate a TLS port shows, whatever it is worth.

    Nothing is trusted and nothing is sent: the question is what is served, not whether to believe
    it, so an expired or foreign certificate is an answer too.

    Raises:
        PeerUnreachableError: Nobody listens there, it is not TLS, or it shows no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address, port), timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=server_name or None) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
    except ssl.SSLError as error:
        raise PeerUnreachableError(
            f"{address}:{port} does not speak TLS as expected: {error.reason or error}"
        ) from None
    except OSError as error:
        raise PeerUnreachableError(
            f"{address}:{port} does not answer: {error.strerror or error}",
            hint="is the service running, and is this the right port?",
        ) from None
    return shown_leaf(der or b"", f"{address}:{port}")


def shown_leaf(der: bytes, where: str) -> Leaf:
    """Return what matters of a certificate that anybody may have sent.

    Raises:
        PeerUnreachableError: `where` did not show one that can be read.
    """
    try:
        return leaf_of(x509.load_der_x509_certificate(der))
    except PARSE_ERRORS:
        raise PeerUnreachableError(f"{where} shows a certificate that cannot be read") from None


def _names(certificate: x509.Certificate) -> tuple[str, ...]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except PARSE_ERRORS:
        return ()
    return (
        *found.get_values_for_type(x509.DNSName),
        *map(str, found.get_values_for_type(x509.IPAddress)),
    )
