"""Leaves with a wildcard: one label, inside the name constraints, and only where it is allowed."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from broker.errors import NameNotAllowedError
from broker.pki.chain import utc
from broker.pki.request import parse_request
from tests.pki.making import NOW, authority, csr, issuer, leaf_profile

SANS = ("web.home.arpa", "*.apps.home.arpa")
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not on PATH")


def signed(*sans: str, wildcards: bool = True) -> bytes:
    """Return a leaf with these names."""
    leaf = dataclasses.replace(leaf_profile(sans=sans), wildcards=wildcards)
    return issuer().sign_leaf(parse_request(csr()), leaf)


@pytest.mark.parametrize(
    ("name", "matches"),
    [
        ("shop.apps.home.arpa", True),
        ("web.home.arpa", True),
        ("apps.home.arpa", False),
        ("a.b.apps.home.arpa", False),
        ("nas.home.arpa", False),
    ],
)
def test_a_wildcard_leaf_stands_for_one_label_below(
    name: str,
    matches: bool,  # noqa: FBT001 (one of the cases above)
) -> None:
    """RFC 6125 6.4.3, asked of a verifier that checks name constraints too."""
    created = authority()
    store = Store([x509.load_der_x509_certificate(created.root)])
    builder = PolicyBuilder().store(store).time(utc(NOW))
    verifier = builder.build_server_verifier(x509.DNSName(name))
    leaf, chain = signed(*SANS), [x509.load_der_x509_certificate(created.issuing)]
    if matches:
        verifier.verify(x509.load_der_x509_certificate(leaf), chain)
        return
    with pytest.raises(VerificationError):
        verifier.verify(x509.load_der_x509_certificate(leaf), chain)


@pytest.mark.parametrize(
    "san",
    [
        "*.internal",
        "*.example.com",
        "*.*.home.arpa",
        "web.*.home.arpa",
        "*.",
        "*",
        "*.10.0.0.5",
        "*.-x.home.arpa",
        "*x.home.arpa",
    ],
)
def test_no_other_wildcard_is_ever_signed(san: str) -> None:
    """The lint is the last word, whatever the policy code decided."""
    with pytest.raises(NameNotAllowedError):
        signed("web.home.arpa", san)


def test_where_wildcards_are_not_allowed_none_is_signed() -> None:
    """The profile has to say so."""
    with pytest.raises(NameNotAllowedError, match="wildcard"):
        signed(*SANS, wildcards=False)


@needs_openssl
def test_openssl_takes_a_wildcard_leaf_below_the_name_constraints(tmp_path: Path) -> None:
    """What nginx and curl are built on."""
    created = authority()
    for name, der in (
        ("root", created.root),
        ("issuing", created.issuing),
        ("leaf", signed(*SANS)),
    ):
        certificate = x509.load_der_x509_certificate(der)
        (tmp_path / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    verify = ["openssl", "verify", "-attime", str(NOW), "-CAfile", "root.pem"]
    verify += ["-untrusted", "issuing.pem", "-verify_hostname", "shop.apps.home.arpa", "leaf.pem"]
    done = subprocess.run(verify, cwd=tmp_path, capture_output=True, check=False, timeout=20)
    assert done.returncode == 0, done.stderr
