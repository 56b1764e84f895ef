"""Certificate signing requests as a hostile stranger would write them."""

import ipaddress
import time
import warnings
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import CSRRejectedError
from broker.pki.request import REQUEST_BYTES_MAX, parse_request
from tests.pki.making import csr, member_key

CPU_BUDGET_S = 0.05

# RFC 8410-style nested DER written out: a request with a 16384-bit modulus needs no such key to
# exist, because its size is judged before its signature.
RSA_OID = bytes.fromhex("300d06092a864886f70d0101010500")


def _der(tag: int, body: bytes) -> bytes:
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _forged_rsa_request(modulus: int, exponent: int = 65_537) -> bytes:
    public_key = _der(0x30, _integer(modulus) + _integer(exponent))
    spki = _der(0x30, RSA_OID + _der(0x03, b"\x00" + public_key))
    unsigned = _der(0x30, _integer(0) + _der(0x30, b"") + spki + _der(0xA0, b""))
    algorithm = bytes.fromhex("300d06092a864886f70d01010b0500")
    signature = _der(0x03, b"\x00" + b"\x01" * ((modulus.bit_length() + 7) // 8))
    return _der(0x30, unsigned + algorithm + signature)


def _refusal(der: bytes) -> str:
    with pytest.raises(CSRRejectedError) as refused:
        parse_request(der)
    return refused.value.detail


@pytest.mark.parametrize(
    ("make", "algorithm"),
    [
        (lambda: ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
        (lambda: ec.generate_private_key(ec.SECP256R1()), hashes.SHA384()),
        (lambda: ec.generate_private_key(ec.SECP384R1()), hashes.SHA256()),
        (lambda: ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
        (ed25519.Ed25519PrivateKey.generate, None),
        (lambda: rsa.generate_private_key(65_537, 2048), hashes.SHA256()),
    ],
)
def test_every_accepted_key_type_yields_its_own_spki(
    make: Callable[[], CertificateIssuerPrivateKeyTypes], algorithm: hashes.HashAlgorithm | None
) -> None:
    """What is certified later is exactly the key that signed the request."""
    key = make()
    parsed = parse_request(csr(key, algorithm=algorithm))
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert parsed.spki == spki
    digest = hashes.Hash(hashes.SHA256())
    digest.update(spki)
    assert parsed.key_hash == digest.finalize().hex()


def test_names_come_out_as_text_in_order() -> None:
    """DNS names and both kinds of addresses are wishes the policy can compare."""
    addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("10.0.0.5", "fd00::5")]
    parsed = parse_request(csr(sans=[x509.DNSName("web.home.arpa"), *addresses]))
    assert parsed.common_name == "web"
    assert parsed.sans == ("web.home.arpa", "10.0.0.5", "fd00::5")


def test_a_request_without_names_is_a_request_for_a_key_only() -> None:
    """The profile decides names; a bare request is enough."""
    parsed = parse_request(csr(common_name="", sans=[]))
    assert (parsed.common_name, parsed.sans) == ("", ())


def test_a_request_signed_by_another_key_is_refused() -> None:
    """Whoever copies a public key from somewhere does not get a certificate for it."""
    foreign = ec.generate_private_key(ec.SECP256R1())
    theirs = csr(member_key())
    spki = member_key().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    mine = foreign.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert "not signed by the key" in _refusal(theirs.replace(spki, mine))


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65_537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP384R1()),
        member_key(),
    ],
    ids=["rsa", "ed25519", "p384", "p256"],
)
def test_a_flipped_bit_in_what_was_signed_is_refused_for_every_key_type(
    key: CertificateIssuerPrivateKeyTypes,
) -> None:
    """The quick check of the common case must not be weaker than the library's."""
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    der = csr(key, common_name="honest", algorithm=algorithm)
    assert "not signed by the key" in _refusal(der.replace(b"honest", b"hohest"))


def test_a_signature_that_is_not_whole_octets_is_refused() -> None:
    """The library overlooks it where the last bits are zero; one request has one encoding."""
    der = csr()
    while der[-1] & 1:
        der = csr()
    length = len(x509.load_der_x509_csr(der).signature)
    other = bytearray(der)
    other[-length - 1] = 1
    assert x509.load_der_x509_csr(bytes(other)).is_signature_valid
    assert "whole octets" in _refusal(bytes(other))


def test_rsa_1024_is_refused_by_name() -> None:
    """Weak keys are refused with their size in the sentence."""
    weak = rsa.generate_private_key(65_537, 1024)  # noqa: S505 (the weakness under test)
    assert "RSA key of 1024 bits" in _refusal(csr(weak))


def test_rsa_16384_is_refused_before_its_signature_costs_anything() -> None:
    """A verification with such a key takes long enough to stop a broker (row 44)."""
    der = _forged_rsa_request((1 << 16_383) | 1)
    started = time.process_time()
    detail = _refusal(der)
    assert time.process_time() - started < CPU_BUDGET_S
    assert "RSA key of 16384 bits" in detail


def test_a_huge_public_exponent_is_refused_before_its_signature() -> None:
    """An exponent as long as the modulus makes verification as slow as signing."""
    modulus = rsa.generate_private_key(65_537, 2048).public_key().public_numbers().n
    assert "exponent" in _refusal(_forged_rsa_request(modulus, (1 << 2040) | 1))
    assert "exponent" in _refusal(_forged_rsa_request(modulus, 3))


@pytest.mark.parametrize("curve", [ec.SECP521R1(), ec.SECP256K1(), ec.SECP224R1(), ec.SECP192R1()])
def test_other_curves_are_refused(curve: ec.EllipticCurve) -> None:
    """Two curves are enough; P-192 is too weak and the rest nobody verifies."""
    assert curve.name in _refusal(csr(ec.generate_private_key(curve)))


def test_other_key_types_are_refused() -> None:
    """A type nobody on the LAN can verify helps nobody."""
    assert "Ed448" in _refusal(csr(ed448.Ed448PrivateKey.generate(), algorithm=None))
    old = dsa.generate_private_key(2048)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        der = csr(old)
    assert "DSA" in _refusal(der)


@pytest.mark.parametrize(
    "foreign",
    [
        x509.RFC822Name("root@home.arpa"),
        x509.UniformResourceIdentifier("spiffe://home/web"),
        x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])),
        x509.RegisteredID(ObjectIdentifier("1.2.3.4")),
        x509.OtherName(ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    ],
)
def test_other_name_types_are_refused(foreign: x509.GeneralName) -> None:
    """The name constraints of the issuing CA say nothing about these types."""
    detail = _refusal(csr(sans=[x509.DNSName("web.home.arpa"), foreign]))
    assert type(foreign).__name__ in detail


@pytest.mark.parametrize(
    "wish",
    [
        x509.BasicConstraints(ca=True, path_length=0),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
    ],
)
def test_a_request_that_asks_for_more_than_a_leaf_is_refused(wish: x509.ExtensionType) -> None:
    """Such wishes are never granted; saying so beats ignoring them (row 44)."""
    assert "asks for" in _refusal(csr(extensions=[wish]))


def test_ordinary_wishes_of_other_tools_are_accepted() -> None:
    """Certbot, openssl and cfssl put these in."""
    wishes: list[x509.ExtensionType] = [
        x509.BasicConstraints(ca=False, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
    ]
    assert parse_request(csr(extensions=wishes)).sans == ("web.home.arpa",)


def test_trailing_bytes_are_refused() -> None:
    """Two readers must never see two different requests."""
    assert "not one DER" in _refusal(csr() + b"\x00")
    assert "not one DER" in _refusal(csr() + csr())


def test_an_oversized_request_is_refused_before_parsing() -> None:
    """A valid but huge request is refused for its size, so the parser never saw it (row 44)."""
    names = [x509.DNSName(f"n{number}.home.arpa") for number in range(1200)]
    der = csr(sans=names)
    assert len(der) > REQUEST_BYTES_MAX
    assert f"{len(der)} bytes" in _refusal(der)


def test_too_many_names_are_refused() -> None:
    """Every name costs policy work and room in the certificate."""
    names = [x509.DNSName(f"n{number}.home.arpa") for number in range(65)]
    assert "65 names" in _refusal(csr(sans=names))


def test_sha1_signatures_are_refused() -> None:
    """The self-signature is evidence of possession only if nobody can forge it."""
    key = rsa.generate_private_key(65_537, 2048)
    der = csr(key)
    sha256_oid, sha1_oid = (bytes.fromhex(f"06092a864886f70d0101{last}") for last in ("0b", "05"))
    assert "sha1, which is weak" in _refusal(der.replace(sha256_oid, sha1_oid))


def test_two_common_names_are_refused() -> None:
    """Which one would be meant is a question of the reader's library."""
    twice = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text) for text in ("a", "b")])
    draft = x509.CertificateSigningRequestBuilder().subject_name(twice)
    der = draft.sign(member_key(), hashes.SHA256()).public_bytes(Encoding.DER)
    assert "more than one common name" in _refusal(der)


def test_an_overlong_common_name_is_refused_without_a_warning() -> None:
    """The library only warns; a stranger must not write lines into our error log."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        long = x509.NameAttribute(NameOID.COMMON_NAME, "a" * 80, _validate=False)
    name = x509.Name([long])
    draft = x509.CertificateSigningRequestBuilder().subject_name(name)
    der = draft.sign(member_key(), hashes.SHA256()).public_bytes(Encoding.DER)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert "subject" in _refusal(der)
    assert seen == []


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 10_000), value=st.integers(1, 255), cut=st.booleans())
def test_damaged_requests_end_in_the_typed_refusal(position: int, value: int, *, cut: bool) -> None:
    """Whatever a stranger sends can only be refused, never crash the broker (row 44)."""
    der = bytearray(csr(extensions=[x509.BasicConstraints(ca=False, path_length=None)]))
    index = position % len(der)
    if cut:
        del der[index:]
    else:
        der[index] ^= value
    with pytest.raises(CSRRejectedError):
        parse_request(bytes(der))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_end_in_the_typed_refusal(raw: bytes) -> None:
    """The gateway passes on what it got."""
    with pytest.raises(CSRRejectedError):
        parse_request(raw)
