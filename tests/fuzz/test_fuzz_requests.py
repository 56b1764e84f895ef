"""The corpus of hostile certificate requests, at the parser and at a whole broker (row 44).

`tests/pki/test_pki_request.py` has the requests that a library can be made to write. Here are those
that no library writes, signed all the same, and what a broker makes of names it was not asked to
give away.
"""

import hashlib
import ipaddress
import time
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.errors import CSRRejectedError, MeshError
from broker.pki.chain import spki_of
from broker.pki.request import REQUEST_BYTES_MAX, parse_request
from broker.wire.enrollment import CreateInvite, InviteView, JoinAnswer
from broker.wire.ids import Service
from tests.fuzz.target import CPU_MS_MAX
from tests.fuzz.targets_pki import request
from tests.pki.making import csr, member_key
from tests.shell.office import Office, issued_of, join_request

SAN_OID, EXTENSIONS_OID = bytes.fromhex("0603551d11"), bytes.fromhex("06092a864886f70d01090e")
ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")


def der(tag: int, *parts: bytes) -> bytes:
    """Return one DER element."""
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes([tag, len(body)]) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + body


def san(name: bytes) -> bytes:
    """Return a SAN extension with one DNS name."""
    return der(0x30, SAN_OID, der(0x04, der(0x30, der(0x82, name))))


def attribute(*extensions: bytes) -> bytes:
    """Return the attribute of a request that carries extensions."""
    return der(0x30, EXTENSIONS_OID, der(0x31, der(0x30, *extensions)))


def written(*, version: bytes = b"\x02\x01\x00", subject: bytes = b"", asks: bytes = b"") -> bytes:
    """Return a request that is put together by hand, and truly signed by the key in it."""
    key = member_key()
    unsigned = der(0x30, version, der(0x30, subject), spki_of(key.public_key()), der(0xA0, asks))
    signature = key.sign(unsigned, ec.ECDSA(hashes.SHA256()))
    return der(0x30, unsigned, ECDSA_SHA256, der(0x03, b"\x00", signature))


def name(oid: bytes, value: bytes) -> bytes:
    """Return one relative name of a subject."""
    return der(0x31, der(0x30, der(0x06, oid), value))


COMMON_NAME = bytes.fromhex("550403")
WRITTEN = {
    "the-same-extension-twice": written(asks=attribute(san(b"a.b"), san(b"c.d"))),
    "two-sets-of-extensions": written(asks=attribute(san(b"a.b")) + attribute(san(b"c.d"))),
    "a-huge-oid": written(asks=der(0x30, der(0x06, b"\xff" * 9000 + b"\x01"), der(0x31))),
    "an-oid-without-end": written(asks=der(0x30, der(0x06, b"\xff" * 9), der(0x31))),
    "a-negative-version": written(version=b"\x02\x01\xff"),
    "a-huge-version": written(version=der(0x02, b"\x7f" * 200)),
    "a-subject-of-a-wrong-type": written(subject=name(COMMON_NAME, der(0x01, b"\xff"))),
    "a-subject-without-end": written(subject=name(COMMON_NAME, b"\x0c\x84\x7f\xff\xff\xff")),
    "nesting-without-end": written(asks=b"\x30\x80" * 3000),
    "a-mebibyte": bytes(1_048_576),
    "nothing": b"",
}


@pytest.mark.parametrize("what", sorted(WRITTEN))
def test_a_request_that_no_library_writes_is_refused_quickly(what: str) -> None:
    """The signature is right: only what is asked for can be the reason (row 44)."""
    spent: list[float] = []
    for _ in range(3):  # the first one imports
        began = time.thread_time()
        with pytest.raises(CSRRejectedError):
            parse_request(WRITTEN[what])
        spent.append((time.thread_time() - began) * 1000)
    assert min(spent) <= CPU_MS_MAX


def test_a_request_written_by_hand_is_accepted_when_nothing_is_wrong_with_it() -> None:
    """Otherwise the table above would show nothing but a bad pen."""
    right = written(subject=name(COMMON_NAME, der(0x0C, b"web")), asks=attribute(san(b"a.b")))
    assert parse_request(right).sans == ("a.b",)


def test_rsa_512_is_refused_by_its_size() -> None:
    """OpenSSL does not even make such a key any more; an attacker's tool does."""
    modulus = (1 << 511) | 1
    number = der(0x02, modulus.to_bytes(65))
    key = der(0x30, number, der(0x02, b"\x01\x00\x01"))
    rsa_oid = bytes.fromhex("300d06092a864886f70d0101010500")
    spki = der(0x30, rsa_oid, der(0x03, b"\x00", key))
    unsigned = der(0x30, b"\x02\x01\x00", der(0x30), spki, der(0xA0))
    algorithm = bytes.fromhex("300d06092a864886f70d01010b0500")
    with pytest.raises(CSRRejectedError, match=r"512 bits|damaged"):
        parse_request(der(0x30, unsigned, algorithm, der(0x03, b"\x00", b"\x01" * 64)))


@pytest.mark.parametrize("text", [b"web.home.arpa\x00.evil", b"a\r\nb.home.arpa", b"\x1b[2J.local"])
def test_octets_in_a_name_that_no_name_has_are_refused_before_anything_is_signed(
    text: bytes,
) -> None:
    """Parsers differ in where such a name ends; the refusal shows it without sending it on."""
    with pytest.raises(MeshError) as refused:
        request(written(asks=attribute(san(text))))
    assert refused.value.detail.isprintable()


def test_names_in_another_alphabet_are_refused() -> None:
    """Internationalised names come as `xn--`; anything else looks like what it is not."""
    with pytest.raises(MeshError):
        request(written(asks=attribute(san("wéb.home.arpa".encode()))))


@pytest.fixture(scope="module")
def office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    """A broker that lets `nas` in by invite, in `*.home.arpa` and private networks."""
    made = Office.create(tmp_path_factory.mktemp("o"))
    yield made
    made.ledger.close()


def ask(office: Office, host: str, asked: bytes) -> JoinAnswer:
    """Join `host` by a fresh invite with this request."""
    secret = hashlib.sha256(asked + host.encode()).hexdigest()[:22]
    digest = hashlib.sha256(secret.encode()).hexdigest()
    wish = CreateInvite(secret_hash=digest, host=host, sans=(), ttl_s=900, operator="ann")
    office.ask(Service.CONSOLE, wish, InviteView)
    join = join_request(host, asked, invite_secret=secret)
    return office.ask(Service.GATEWAY, join, JoinAnswer)


HOSTILE_NAMES: dict[str, bytes] = {
    "another-host": csr(common_name="", sans=[x509.DNSName("atlas.home.internal")]),
    "another-common-name": csr(common_name="atlas", sans=[]),
    "outside-the-domains": csr(common_name="", sans=[x509.DNSName("www.example.com")]),
    "a-wildcard": csr(common_name="", sans=[x509.DNSName("*.home.arpa")]),
    "a-wildcard-of-all": csr(common_name="", sans=[x509.DNSName("*")]),
    "a-public-address": csr(
        common_name="", sans=[x509.IPAddress(ipaddress.ip_address("203.0.113.9"))]
    ),
    "a-trailing-dot": csr(common_name="", sans=[x509.DNSName("web.home.arpa.")]),
}


@pytest.mark.parametrize("what", sorted(HOSTILE_NAMES))
def test_names_that_nobody_granted_are_in_no_certificate(office: Office, what: str) -> None:
    """Refused with a reason, or issued without them: the request is a wish (row 44) (P4)."""
    wished = x509.load_der_x509_csr(HOSTILE_NAMES[what])
    host = f"h{sorted(HOSTILE_NAMES).index(what)}"
    try:
        answer = ask(office, host, HOSTILE_NAMES[what])
    except MeshError:
        return
    leaf = x509.load_der_x509_certificate(issued_of(answer).leaf)
    granted = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert not set(granted) & set(_names(wished))
    assert [one.value for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [host]


def test_what_a_request_asks_to_be_is_never_copied(office: Office) -> None:
    """Key usage, path length and unknown extensions come from the profile alone (row 44)."""
    wishes: list[x509.ExtensionType] = [
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
        x509.InhibitAnyPolicy(0),
    ]
    asked = csr(common_name="", sans=[], extensions=wishes)
    leaf = x509.load_der_x509_certificate(issued_of(ask(office, "odd", asked)).leaf)
    oids = {extension.oid.dotted_string for extension in leaf.extensions}
    assert not oids & {"1.2.3.4", "2.5.29.54"}
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not basic.ca


def test_the_largest_request_is_parsed_inside_the_bound() -> None:
    """Sixteen KiB of names and an RSA key of 4096 bits: the worst that gets past the size."""
    names = [x509.DNSName(f"{'n' * 55}{number}.{'m' * 60}.home.arpa") for number in range(64)]
    key = rsa.generate_private_key(65_537, 4096)
    draft = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=False)
    largest = draft.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert len(largest) <= REQUEST_BYTES_MAX
    spent: list[float] = []
    for _ in range(3):
        began = time.thread_time()
        assert len(parse_request(largest).sans) == len(names)
        spent.append((time.thread_time() - began) * 1000)
    assert min(spent) <= CPU_MS_MAX


def _names(request: x509.CertificateSigningRequest) -> list[x509.GeneralName]:
    try:
        return list(request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []
