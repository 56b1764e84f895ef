"""Leaves: what is signed, what is refused before signing, and who agrees with it afterwards."""

import dataclasses
import ipaddress
import shutil

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import (
    CSRRejectedError,
    MeshError,
    NameNotAllowedError,
)
from broker.pki.chain import utc
from broker.pki.profile import LeafProfile, is_dns_name, lint_leaf
from broker.pki.request import CertificateRequest, parse_request
from tests.pki.making import (
    CRL_URL,
    MEMBER_ID,
    MESH_ID,
    NOW,
    authority,
    csr,
    issuer,
    leaf_profile,
    member_key,
)

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")
LONG_HOST = f"{'a' * 40}.{'b' * 40}.home.arpa"


def _request() -> CertificateRequest:
    return parse_request(csr())


def _signed(leaf: LeafProfile) -> x509.Certificate:
    return x509.load_der_x509_certificate(issuer().sign_leaf(_request(), leaf))


def _refused(leaf: LeafProfile, kind: type[MeshError] = NameNotAllowedError) -> str:
    with pytest.raises(kind) as refused:
        issuer().sign_leaf(_request(), leaf)
    assert type(refused.value) is kind
    return refused.value.detail


def _verify_as_server(der: bytes, name: str, *, root: bytes, issuing: bytes) -> None:
    store = Store([x509.load_der_x509_certificate(root)])
    builder = PolicyBuilder().store(store).time(utc(NOW))
    subject: x509.verification.Subject
    try:
        subject = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    verifier = builder.build_server_verifier(subject)
    verifier.verify(x509.load_der_x509_certificate(der), [x509.load_der_x509_certificate(issuing)])


def _verify_as_client(der: bytes, *, root: bytes, issuing: bytes) -> None:
    store = Store([x509.load_der_x509_certificate(root)])
    verifier = PolicyBuilder().store(store).time(utc(NOW)).build_client_verifier()
    verifier.verify(x509.load_der_x509_certificate(der), [x509.load_der_x509_certificate(issuing)])


def test_a_leaf_says_exactly_what_its_profile_says() -> None:
    """Every field of the profile, and nothing from the request but the key."""
    leaf = leaf_profile()
    request = parse_request(csr(common_name="evil", sans=[x509.DNSName("evil.home.arpa")]))
    certificate = x509.load_der_x509_certificate(issuer().sign_leaf(request, leaf))
    assert certificate.serial_number == leaf.serial
    assert certificate.not_valid_before_utc == utc(leaf.not_before)
    assert certificate.not_valid_after_utc == utc(leaf.not_after)
    assert certificate.public_key() == member_key().public_key()
    sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sans.get_values_for_type(x509.DNSName) == ["web.home.arpa"]
    assert sans.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("10.0.0.5")]
    subject = {attribute.oid: attribute.value for attribute in certificate.subject}
    assert subject == {
        NameOID.COMMON_NAME: "web",
        NameOID.ORGANIZATION_NAME: f"certmesh {MESH_ID}",
        NameOID.SERIAL_NUMBER: MEMBER_ID,
    }


def test_a_leaf_has_the_extensions_of_the_profile_and_no_others() -> None:
    """RFC 5280: which ones, and which of them critical."""
    extensions = _signed(leaf_profile()).extensions
    critical = {type(e.value): e.critical for e in extensions}
    assert critical == {
        x509.AuthorityKeyIdentifier: False,
        x509.BasicConstraints: True,
        x509.KeyUsage: True,
        x509.ExtendedKeyUsage: False,
        x509.SubjectKeyIdentifier: False,
        x509.SubjectAlternativeName: False,
        x509.CRLDistributionPoints: False,
    }
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.digital_signature
    assert not usage.key_cert_sign
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.CLIENT_AUTH,
    ]
    points = extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert points[0].full_name == [x509.UniformResourceIdentifier(CRL_URL)]


def test_without_a_crl_address_there_is_no_distribution_point() -> None:
    """An empty one would be a broken extension."""
    kinds = {type(e.value) for e in _signed(leaf_profile(crl_url="")).extensions}
    assert x509.CRLDistributionPoints not in kinds


def test_a_host_too_long_for_a_common_name_gets_none() -> None:
    """X.520 bounds it at 64; a truncated name would be somebody else's."""
    certificate = _signed(leaf_profile(host=LONG_HOST, sans=(LONG_HOST,)))
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME) == []


@pytest.mark.parametrize(
    ("sans", "reason"),
    [
        (("web",), "single label"),
        (("*.home.arpa",), "wildcard"),
        (("web.*.home.arpa",), "wildcard"),
        (("web.example.com",), "outside the domains"),
        (("webhome.arpa",), "outside the domains"),
        (("8.8.8.8",), "outside the networks"),
        (("2001:db8::1",), "outside the networks"),
        (("fe80::1%eth0",), "neither a DNS name nor an IP address"),
        (("10.0.0.999",), "neither a DNS name nor an IP address"),
        (("web.home.arpa.",), "neither a DNS name"),
        (("WEB.home.arpa",), "neither a DNS name"),
        (("we b.home.arpa",), "neither a DNS name"),
        (("web\n.home.arpa",), "neither a DNS name"),
        (("web.home.arpa\n",), "neither a DNS name"),
        (("",), "neither a DNS name"),
        (("ä.home.arpa",), "neither a DNS name"),
        (("root@home.arpa",), "neither a DNS name"),
        (("../web.home.arpa",), "neither a DNS name"),
        ((f"{'a' * 64}.home.arpa",), "neither a DNS name"),
        ((), "no subject alternative name"),
        (("web.home.arpa", "web.home.arpa"), "given twice"),
    ],
)
def test_the_lint_refuses_names_before_anything_is_signed(
    sans: tuple[str, ...], reason: str
) -> None:
    """Policy code may be wrong; the lint is the last word."""
    assert reason in _refused(leaf_profile(sans=sans))


def test_the_number_of_names_is_bounded() -> None:
    """A certificate is sent in every handshake."""
    names = tuple(f"n{number}.home.arpa" for number in range(65))
    assert "65 subject alternative names" in _refused(leaf_profile(sans=names))


@pytest.mark.parametrize(
    ("host", "sans", "reason"),
    [
        ("web.example.com", ("web.home.arpa",), "outside the domains"),
        ("nas.home.arpa", ("web.home.arpa",), "not among its subject alternative names"),
        ("a/../b", ("web.home.arpa",), "not a host name"),
        ("", ("web.home.arpa",), "not a host name"),
        ("web\nroot", ("web.home.arpa",), "not a host name"),
        ("*", ("web.home.arpa",), "not a host name"),
        (".".join(["a" * 60] * 5), ("web.home.arpa",), "not a host name"),
    ],
)
def test_the_lint_refuses_hosts(host: str, sans: tuple[str, ...], reason: str) -> None:
    """The CN is read by old software, so it obeys the same rules."""
    assert reason in _refused(leaf_profile(host=host, sans=sans))


def test_a_leaf_never_outlives_its_issuer() -> None:
    """The last second of the issuing certificate is the last possible one (row 58)."""
    end = issuer().not_after
    assert "after that of the issuing CA" in _refused(
        leaf_profile(not_after=end + 1), CSRRejectedError
    )
    assert _signed(leaf_profile(not_after=end)).not_valid_after_utc == utc(end)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"not_after": NOW - 60}, "ends before it starts"),
        ({"serial": -1}, "serial number"),
        ({"serial": 2**128}, "serial number"),
        ({"crl_url": "ftp://10.0.0.1/x"}, "distribution point"),
        ({"crl_url": "http://10.0.0.1/ x"}, "distribution point"),
        ({"mesh_id": "not hex"}, "mesh id"),
        ({"member_id": ""}, "member id"),
    ],
)
def test_other_impossible_fields_are_refused(change: dict[str, object], reason: str) -> None:
    """A bug in the broker must not become a certificate."""
    leaf = dataclasses.replace(leaf_profile(), **change)  # type: ignore[arg-type]  # one field at a time
    assert reason in _refused(leaf, CSRRejectedError)


def test_serial_zero_is_refused() -> None:
    """RFC 5280 4.1.2.2: positive."""
    leaf = dataclasses.replace(leaf_profile(), serial=0)
    assert "serial number" in _refused(leaf, CSRRejectedError)


def test_all_mismatches_are_told_at_once() -> None:
    """A person fixes them in one go."""
    leaf = leaf_profile(
        host="a/b", sans=("web", "8.8.8.8", "*.x"), not_after=issuer().not_after + 1
    )
    detail = _refused(leaf)
    for part in ("'a/b'", "single label", "8.8.8.8", "'*.x'", "issuing CA"):
        assert part in detail


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
DNS_SANS = st.builds(
    lambda labels, base: ".".join([*labels, base]),
    st.lists(LABELS, min_size=0, max_size=3),
    st.sampled_from(["home.arpa", "lab.internal"]),
)
V4_SANS = st.builds(str, st.ip_addresses(v=4, network="10.0.0.0/8"))
V6_SANS = st.builds(str, st.ip_addresses(v=6, network="fc00::/7"))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(DNS_SANS, V4_SANS, V6_SANS), min_size=1, max_size=6, unique=True))
def test_whatever_the_lint_lets_through_verifies_in_the_library_as_server_and_client(
    sans: list[str],
) -> None:
    """Our lint and an independent path validator agree, name constraints included."""
    created = authority()
    der = issuer().sign_leaf(_request(), leaf_profile(sans=tuple(sans)))
    _verify_as_client(der, root=created.root, issuing=created.issuing)
    for san in sans:
        _verify_as_server(der, san, root=created.root, issuing=created.issuing)


@settings(max_examples=200, deadline=None)
@given(host=st.text(max_size=80), san=st.text(max_size=80))
def test_arbitrary_names_end_in_a_typed_refusal_or_are_host_names(host: str, san: str) -> None:
    """Nothing else may escape from the lint, and nothing odd may pass."""
    try:
        lint_leaf(leaf_profile(host=host, sans=("web.home.arpa", san)), issuer().facts)
    except NameNotAllowedError:
        return
    assert is_dns_name(host)
