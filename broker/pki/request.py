"""Certificate signing requests: what a stranger may send, and nothing else.

Invariants: size is checked before parsing, the key's type and size before its signature is
verified (a 16384-bit RSA verification is a denial of service), and the signature before anything
in the request is believed. Extensions are read to refuse, never to copy: the certificate is built
from the profile alone.

Source: RFC 2986; RFC 5280 4.2.1.6.
"""

import hashlib
import warnings
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, SignatureAlgorithmOID

from broker.errors import CSRRejectedError
from broker.pki.chain import PARSE_ERRORS, STRICT_ERRORS, is_canonical, spki_of

REQUEST_BYTES_MAX = 16_384
RSA_BITS_MIN = 2048
RSA_BITS_MAX = 4096
RSA_EXPONENT_MIN = 65_537
"""NIST SP 800-56B 6.4; smaller exponents have a history of broken verifiers."""
RSA_EXPONENT_MAX = 2**32
"""A long exponent only makes us work; nobody uses one."""
SANS_MAX = 64

SIGNATURE_HASHES = frozenset({"sha256", "sha384", "sha512"})
LEAF_USAGES = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})
_EXTENSION_REQUESTS = frozenset(
    map(x509.ObjectIdentifier, ("1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14"))
)
"""RFC 2985 5.4.2, and what Microsoft's tools wrote before it."""
_ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())

LeafKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey
"""The key types a mesh certifies."""


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A request whose owner holds the private key; the names are only wishes.

    Attributes:
        public_key: P-256, P-384, Ed25519 or RSA of 2048 to 4096 bits.
        spki: Its DER SubjectPublicKeyInfo.
        key_hash: Hex SHA-256 of `spki`.
        common_name: CN of the subject, or empty.
        sans: DNS names and IP addresses as text.
    """

    public_key: LeafKey
    spki: bytes
    key_hash: str
    common_name: str
    sans: tuple[str, ...]


def parse_request(der: bytes) -> CertificateRequest:
    """Return what a PKCS #10 request proves and wishes.

    Raises:
        CSRRejectedError: Over 16 KiB, not one DER request, weak or unknown key, a signature that
            is not by that key, or wishes no leaf of a mesh may have.
    """
    if len(der) > REQUEST_BYTES_MAX:
        raise CSRRejectedError(
            f"the request has {len(der)} bytes, at most {REQUEST_BYTES_MAX} are allowed"
        )
    try:
        request = x509.load_der_x509_csr(der)
    except PARSE_ERRORS:
        raise CSRRejectedError("the request is not one DER-encoded PKCS #10 request") from None
    if not is_canonical(der, request.signature):
        raise CSRRejectedError("the signature of the request is not whole octets")
    public_key = _acceptable_key(request)
    _check_signature(request, public_key)
    spki = spki_of(public_key)
    return CertificateRequest(
        public_key=public_key,
        spki=spki,
        key_hash=hashlib.sha256(spki).hexdigest(),
        common_name=_common_name(request),
        sans=_sans(request),
    )


def _acceptable_key(request: x509.CertificateSigningRequest) -> LeafKey:
    try:
        key = request.public_key()
    except PARSE_ERRORS:
        raise CSRRejectedError(
            "the key of the request is damaged or of a type this mesh does not certify",
            hint="use an ECDSA P-256 key",
        ) from None
    weakness = _weakness(key)
    if weakness:
        raise CSRRejectedError(
            f"{weakness} is not accepted; P-256, P-384, Ed25519 and RSA of 2048 to 4096 bits are",
            hint="use an ECDSA P-256 key",
        )
    assert isinstance(key, LeafKey)  # _weakness named every other type
    return key


def _weakness(key: CertificatePublicKeyTypes) -> str:
    """Return the name of an unacceptable key, or an empty text."""
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ""
    if isinstance(key, ec.EllipticCurvePublicKey):
        accepted = isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1)
        return "" if accepted else f"an elliptic-curve key on {key.curve.name}"
    if isinstance(key, rsa.RSAPublicKey):
        return _rsa_weakness(key)
    return f"a key of type {type(key).__name__.removesuffix('PublicKey')}"


def _rsa_weakness(key: rsa.RSAPublicKey) -> str:
    if not RSA_BITS_MIN <= key.key_size <= RSA_BITS_MAX:
        return f"an RSA key of {key.key_size} bits"
    if not RSA_EXPONENT_MIN <= key.public_numbers().e <= RSA_EXPONENT_MAX:
        return "an RSA key with an unusual public exponent"
    return ""


def _check_signature(request: x509.CertificateSigningRequest, key: LeafKey) -> None:
    try:
        algorithm = request.signature_hash_algorithm
        if algorithm is not None and algorithm.name not in SIGNATURE_HASHES:
            raise CSRRejectedError(f"the request is signed with {algorithm.name}, which is weak")
        sound = _is_signed_by(request, key)
    except PARSE_ERRORS:
        sound = False
    if not sound:
        raise CSRRejectedError("the request is not signed by the key it contains")


def _is_signed_by(request: x509.CertificateSigningRequest, key: LeafKey) -> bool:
    ordinary = request.signature_algorithm_oid == SignatureAlgorithmOID.ECDSA_WITH_SHA256
    if not ordinary or not isinstance(key, ec.EllipticCurvePublicKey):
        return request.is_signature_valid
    # The same check as is_signature_valid without parsing the key again: a fifth faster on the
    # request that every member sends.
    try:
        key.verify(request.signature, request.tbs_certrequest_bytes, _ECDSA_SHA256)
    except InvalidSignature:
        return False
    return True


def _common_name(request: x509.CertificateSigningRequest) -> str:
    try:
        # cryptography only warns of attributes beyond the bounds of X.520; here that is a refusal.
        with warnings.catch_warnings(action="error", category=UserWarning):
            names = request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except STRICT_ERRORS:
        raise CSRRejectedError("the subject of the request is malformed") from None
    if len(names) > 1:
        raise CSRRejectedError("the request has more than one common name")
    if not names:
        return ""
    value = names[0].value
    if not isinstance(value, str):
        raise CSRRejectedError("the common name of the request is not text")
    return value


def _sans(request: x509.CertificateSigningRequest) -> tuple[str, ...]:
    try:
        extensions = request.extensions
        sets = [one for one in request.attributes if one.oid in _EXTENSION_REQUESTS]
    except PARSE_ERRORS:
        raise CSRRejectedError("the extensions of the request are malformed") from None
    if len(sets) > 1:
        # The library reads the first set, other tools the last: two readers, two requests.
        raise CSRRejectedError("the request asks for extensions twice")
    names: tuple[str, ...] = ()
    for extension in extensions:
        value = extension.value
        if isinstance(value, x509.SubjectAlternativeName):
            names = _names(value)
        elif isinstance(value, x509.BasicConstraints) and value.ca:
            raise CSRRejectedError("the request asks for a CA certificate")
        elif isinstance(value, x509.ExtendedKeyUsage) and not LEAF_USAGES.issuperset(value):
            raise CSRRejectedError(
                "the request asks for more than server and client authentication"
            )
    return names


def _names(sans: x509.SubjectAlternativeName) -> tuple[str, ...]:
    texts = []
    for name in sans:
        if not isinstance(name, x509.DNSName | x509.IPAddress):
            raise CSRRejectedError(
                f"the request asks for a name of type {type(name).__name__};"
                " only DNS names and IP addresses are certified"
            )
        texts.append(str(name.value))
    if len(texts) > SANS_MAX:
        raise CSRRejectedError(f"the request asks for {len(texts)} names, at most {SANS_MAX}")
    return tuple(texts)
