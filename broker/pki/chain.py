"""Reading certificates and checking who signed whom, on DER.

Everything here raises `ValueError` with a sentence; callers translate it into the refusal that
fits their side (a damaged file, a rejected bundle).
"""

import hashlib
import warnings
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

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
STRICT_ERRORS: tuple[type[Exception], ...] = (UserWarning, *PARSE_ERRORS)
CHECK_ERRORS: tuple[type[Exception], ...] = (InvalidSignature, *PARSE_ERRORS)


def spki_of(key: CertificatePublicKeyTypes) -> bytes:
    """Return the DER SubjectPublicKeyInfo of `key`."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_identifier(spki: bytes) -> bytes:
    """Return the key identifier of an SPKI: SHA-256 over its DER (RFC 7093 section 2, method 4)."""
    return hashlib.sha256(spki).digest()


def utc(seconds: int) -> datetime:
    """Return `seconds` since the epoch as the aware datetime cryptography wants."""
    return datetime.fromtimestamp(seconds, UTC)


def naive_utc(seconds: int) -> datetime:
    """Return `seconds` as the naive UTC datetime that constructors of cryptography's builders take.

    The fluent methods of the builders convert aware ones; building with the constructor is faster.
    """
    return utc(seconds).replace(tzinfo=None)


def read_certificate(der: bytes) -> x509.Certificate:
    """Return the parsed certificate.

    Raises:
        ValueError: Not one DER certificate, trailing bytes, or damaged extensions or key.
    """
    try:
        # What the library only warns of (a negative serial, an overlong name) is a refusal here.
        with warnings.catch_warnings(action="error", category=UserWarning):
            certificate = x509.load_der_x509_certificate(der)
            # Parsed lazily; damage in them must show here and not in a later caller.
            certificate.public_key()
            _ = certificate.extensions, certificate.subject, certificate.issuer
    except STRICT_ERRORS:
        raise ValueError("it is not a readable X.509 certificate") from None
    if not is_canonical(der, certificate.signature):
        raise ValueError("its signature is not whole octets")
    return certificate


def is_canonical(der: bytes, signature: bytes) -> bool:
    """Tell whether the BIT STRING at the end of a signed object is whole octets, as all are.

    The library ignores a wrong count of unused bits there, which the signature does not cover:
    one object would have several encodings, and several fingerprints.
    """
    return der[-len(signature) - 1] == 0


def check_issued(child: x509.Certificate, parent: x509.Certificate) -> None:
    """Verify that `parent` names and signed `child`.

    Raises:
        ValueError: Other issuer name, or the signature does not verify.
    """
    try:
        child.verify_directly_issued_by(parent)
    except CHECK_ERRORS:
        raise ValueError("it was not signed by the root certificate of this mesh") from None


def key_id_of(der: bytes) -> bytes:
    """Return the subject key identifier of a CA certificate: the AKI of all that it signs.

    Raises:
        ValueError: Unreadable, or it has none.
    """
    extensions = read_certificate(der).extensions
    try:
        return extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except PARSE_ERRORS:
        raise ValueError("it has no subject key identifier") from None


def was_issued_by(leaf: bytes, key_id: bytes) -> bool:
    """Return whether a leaf of this mesh was signed by the issuing CA of this key identifier.

    The identifier is 32 octets of a hash and stands in the AKI of the leaf, which is not parsed:
    this is asked of every member.
    """
    return key_id in leaf


def is_younger(der: bytes, than: bytes) -> bool:
    """Return whether a certificate begins to be valid after another one does; both readable."""
    begins = read_certificate(der).not_valid_before_utc
    return begins > read_certificate(than).not_valid_before_utc


def check_authority(certificate: x509.Certificate) -> None:
    """Verify that `certificate` may sign certificates, with a P-256 key.

    Raises:
        ValueError: No CA bit, no keyCertSign (RFC 5280 4.2.1.3 and 4.2.1.9), or another key.
    """
    try:
        basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except PARSE_ERRORS:
        raise ValueError("it is not a CA certificate") from None
    if not basic.ca or not usage.key_cert_sign:
        raise ValueError("it is not a CA certificate")
    p256_key(certificate)


def check_current(certificate: x509.Certificate, now: int) -> None:
    """Verify that `now` lies inside the validity (both ends belong to it, RFC 5280 4.1.2.5).

    Raises:
        ValueError: Expired or not valid yet.
    """
    if utc(now) > certificate.not_valid_after_utc:
        raise ValueError("it has expired")
    if utc(now) < certificate.not_valid_before_utc:
        raise ValueError("it is not valid yet")


def p256_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    """Return the P-256 public key of a CA certificate of a mesh.

    Raises:
        ValueError: Any other key.
    """
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("its key is not an ECDSA P-256 key")  # noqa: TRY004 (content, not a type)
    return key
