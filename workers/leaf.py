"""What must be true of a certificate before this node uses it.

A leaf is accepted when it belongs to the key on disk, names this host, is valid now, and chains to
the pinned root through the issuing certificate that came with it. Mismatches are collected and
raised once.

Source: RFC 5280 section 6, by cryptography's verifier.
"""

import ipaddress
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from broker.errors import CSRRejectedError, MalformedMessageError
from broker.units import UnixSeconds

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
UNSIGNED_ERRORS: tuple[type[Exception], ...] = (InvalidSignature, *PARSE_ERRORS)


def read_certificate(der: bytes, what: str) -> x509.Certificate:
    """Return the parsed certificate; `what` names it in the error.

    Raises:
        MalformedMessageError: Not one DER certificate.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        # Both are parsed lazily; damage in them must show here and not in a later caller.
        certificate.public_key()
        _ = certificate.extensions
    except PARSE_ERRORS:
        raise MalformedMessageError(f"the {what} is not a readable certificate") from None
    return certificate


def spki_of_key(key_pem: bytes) -> bytes:
    """Return the DER SubjectPublicKeyInfo of a private key in PEM.

    Raises:
        ValueError: Not a readable key.
    """
    try:
        key = load_pem_private_key(key_pem, password=None)
    except PARSE_ERRORS:
        raise ValueError("not a readable private key") from None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def spki_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """Return the DER SubjectPublicKeyInfo of a certificate or a request."""
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def names_of(certificate: x509.Certificate | x509.CertificateSigningRequest) -> tuple[str, ...]:
    """Return the DNS names and IP addresses of the SAN extension, as text."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except PARSE_ERRORS:
        return ()
    kinds = (x509.DNSName, x509.IPAddress)
    return tuple(str(name.value) for name in extension.value if isinstance(name, kinds))


def serial_of(certificate: x509.Certificate) -> str:
    """Return the serial in lower-case hex, without prefix."""
    return format(certificate.serial_number, "x")


def check_leaf(
    leaf: x509.Certificate, chain: tuple[x509.Certificate, x509.Certificate], host: str, now: int
) -> None:
    """Verify that `leaf` is a certificate this host may use now.

    Args:
        leaf: The new certificate.
        chain: The issuing certificate and the pinned root.
        host: This node's name.
        now: Wall time in seconds.

    Raises:
        CSRRejectedError: Lists every mismatch.
    """
    faults = [*_name_faults(leaf, host), *_validity_faults(leaf, now)]
    faults = faults or _chain_faults(leaf, chain, now)
    if faults:
        raise CSRRejectedError(
            f"the new certificate for {host} was not installed: " + "; ".join(faults),
            hint="the old certificate stays in use; see the CA's log and both clocks",
        )


def signed_by(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    """Return whether `root` names and signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(root)
    except UNSIGNED_ERRORS:
        return False
    return True


def check_pair(leaf: x509.Certificate, key_pem: bytes) -> None:
    """Verify that the certificate was issued for this private key.

    Raises:
        CSRRejectedError: Another key, or an unreadable one.
    """
    try:
        pair = spki_of_key(key_pem) == spki_of(leaf)
    except ValueError:
        pair = False
    if not pair:
        raise CSRRejectedError(
            "the new certificate does not belong to the key that is waiting for it",
            hint="a newer request has replaced that key; the next renewal brings a new pair",
        )


def check_request(leaf: x509.Certificate, csr: bytes) -> None:
    """Verify that the certificate was issued for the key of this request (DER).

    Raises:
        CSRRejectedError: Another key, or an unreadable one.
    """
    try:
        fits = spki_of(x509.load_der_x509_csr(csr)) == spki_of(leaf)
    except PARSE_ERRORS:
        fits = False
    if not fits:
        raise CSRRejectedError("the new certificate does not belong to the key that was asked for")


def unix(moment: datetime) -> UnixSeconds:
    """Return whole seconds since the epoch."""
    return UnixSeconds(int(moment.timestamp()))


def _name_faults(leaf: x509.Certificate, host: str) -> list[str]:
    dns = [name for name in names_of(leaf) if not _is_address(name)]
    common = [
        attribute.value for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ]
    if host in common or any(name == host or name.startswith(f"{host}.") for name in dns):
        return []
    return [f"it names {', '.join(map(str, [*common, *dns])) or 'nobody'}"]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _validity_faults(leaf: x509.Certificate, now: int) -> list[str]:
    if now < unix(leaf.not_valid_before_utc):
        late = unix(leaf.not_valid_before_utc) - now
        return [f"it becomes valid only in {late} s (one of the two clocks is wrong)"]
    if now > unix(leaf.not_valid_after_utc):
        return [f"it expired {now - unix(leaf.not_valid_after_utc)} s ago"]
    return []


def _chain_faults(
    leaf: x509.Certificate, chain: tuple[x509.Certificate, x509.Certificate], now: int
) -> list[str]:
    issuing, root = chain
    moment = datetime.fromtimestamp(now, UTC)
    policy = PolicyBuilder().store(Store([root])).time(moment)
    try:
        policy.build_client_verifier().verify(leaf, [issuing])
    except VerificationError as error:
        return [f"it does not chain to the pinned root ({error})"]
    return []
