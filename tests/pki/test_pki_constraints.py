"""Name constraints as other people's verifiers read them: the library's and openssl's."""

import ipaddress
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from broker.pki.authority import pem
from broker.pki.chain import utc
from broker.pki.profile import LeafProfile
from broker.pki.request import CertificateRequest, parse_request
from tests.pki.making import (
    DAY,
    NOW,
    authority,
    ca_profile,
    csr,
    issuer,
    leaf_profile,
    member_key,
    new_authority,
)

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")
LONG_HOST = f"{'a' * 40}.{'b' * 40}.home.arpa"


def _request() -> CertificateRequest:
    return parse_request(csr())


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


def _leaf_around_the_lint(san: str, created_key: bytes, created_cert: bytes) -> bytes:
    """Return a leaf signed by the issuing key itself, as its thief would."""
    key = serialization.load_der_private_key(created_key, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    parent = x509.load_der_x509_certificate(created_cert)
    parent_id = parent.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    try:
        name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        name = x509.DNSName(san)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(parent.subject)
        .public_key(member_key().public_key())
        .serial_number(5)
        .not_valid_before(utc(NOW - 60))
        .not_valid_after(utc(NOW + DAY))
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(parent_id),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.DER)


OUTSIDE = ["mail.example.com", "8.8.8.8", "2001:db8::1"]


@pytest.mark.parametrize("san", OUTSIDE)
def test_a_thief_of_the_issuing_key_cannot_leave_the_mesh_for_the_library(san: str) -> None:
    """The constraint is in the certificate, not in our good manners."""
    created = authority()
    der = _leaf_around_the_lint(san, created.issuing_key, created.issuing)
    with pytest.raises(VerificationError):
        _verify_as_server(der, san, root=created.root, issuing=created.issuing)


def _openssl_verify(
    directory: Path, leaf: bytes, root: bytes, issuing: bytes, *extra: str
) -> subprocess.CompletedProcess[str]:
    for name, der in (("root", root), ("issuing", issuing), ("leaf", leaf)):
        (directory / f"{name}.pem").write_text(pem(der), encoding="ascii")
    command = ["openssl", "verify", "-x509_strict", "-attime", str(NOW), *extra]
    chain = ["-CAfile", "root.pem", "-untrusted", "issuing.pem", "leaf.pem"]
    return subprocess.run(
        [*command, *chain], cwd=directory, capture_output=True, text=True, check=False, timeout=20
    )


@needs_openssl
@pytest.mark.parametrize("purpose", ["sslserver", "sslclient"])
@pytest.mark.parametrize(
    "leaf",
    [
        leaf_profile(),
        leaf_profile(host=LONG_HOST, sans=(LONG_HOST,)),
        leaf_profile(sans=("10.0.0.5", "fd00::5")),
        leaf_profile(host="nas.home.arpa", sans=("nas.home.arpa", "nas.lab.internal")),
    ],
    ids=["usual", "long-host", "addresses-only", "dotted-host"],
)
def test_openssl_verifies_leaves_strictly(tmp_path: Path, leaf: LeafProfile, purpose: str) -> None:
    """The verifier inside most clients agrees."""
    created = authority()
    der = issuer().sign_leaf(_request(), leaf)
    done = _openssl_verify(tmp_path, der, created.root, created.issuing, "-purpose", purpose)
    assert done.returncode == 0, done.stderr


@needs_openssl
@pytest.mark.parametrize("san", [*OUTSIDE, "webhome.arpa"])
def test_openssl_refuses_leaves_outside_the_constraints(tmp_path: Path, san: str) -> None:
    """A stolen issuing key gains nothing outside the LAN."""
    created = authority()
    der = _leaf_around_the_lint(san, created.issuing_key, created.issuing)
    done = _openssl_verify(tmp_path, der, created.root, created.issuing)
    assert done.returncode != 0
    assert "permitted subtree violation" in done.stderr


@needs_openssl
@pytest.mark.parametrize(
    ("names", "networks", "san"),
    [
        ((), ("10.0.0.0/8",), "web.home.arpa"),
        (("*.home.arpa",), (), "10.0.0.5"),
        (("*.home.arpa",), ("10.0.0.0/8",), "fd00::5"),
    ],
)
def test_openssl_refuses_a_family_that_the_mesh_does_not_mention(
    tmp_path: Path, names: tuple[str, ...], networks: tuple[str, ...], san: str
) -> None:
    """Unmentioned must mean nothing, not everything."""
    created = new_authority(ca_profile(names=names, networks=networks))
    der = _leaf_around_the_lint(san, created.issuing_key, created.issuing)
    done = _openssl_verify(tmp_path, der, created.root, created.issuing)
    assert done.returncode != 0
    assert "subtree violation" in done.stderr
