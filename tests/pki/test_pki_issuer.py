"""The open issuer: what it accepts to open, and what it releases."""

import dataclasses

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import (
    InternalError,
    LedgerDamagedError,
)
from broker.pki.issuer import Issuer
from broker.pki.profile import facts_of
from broker.pki.request import CertificateRequest, parse_request
from tests.pki.making import (
    DAY,
    NOW,
    authority,
    csr,
    issuer,
    issuer_of,
    leaf_profile,
    new_authority,
)


def _request() -> CertificateRequest:
    return parse_request(csr())


def test_an_issuer_with_the_wrong_key_releases_nothing() -> None:
    """Signing is verified after the fact: a wrong signature never leaves."""
    certificate = x509.load_der_x509_certificate(authority().issuing)
    broken = Issuer(authority().root, certificate, ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(InternalError, match="does not verify"):
        broken.sign_leaf(_request(), leaf_profile())


def test_a_finished_certificate_that_differs_from_its_profile_is_not_released() -> None:
    """A good signature over something else is just as wrong."""
    leaf, request = leaf_profile(), _request()
    finished = x509.load_der_x509_certificate(issuer().sign_leaf(request, leaf))
    ordered = issuer()._extensions(request, leaf)
    issuer()._check_finished(finished, leaf, ordered)
    for other in (
        dataclasses.replace(leaf, serial=leaf.serial ^ 1),
        dataclasses.replace(leaf, not_after=leaf.not_after + 1),
    ):
        with pytest.raises(InternalError, match="differs"):
            issuer()._check_finished(finished, other, ordered)
    with pytest.raises(InternalError, match="differs"):
        issuer()._check_finished(finished, leaf, ordered[:-1])


def test_opening_refuses_a_key_that_is_not_the_certificates() -> None:
    """Mixed files of two meshes must not produce certificates nobody can verify."""
    ours, theirs = authority(), new_authority()
    with pytest.raises(LedgerDamagedError, match="does not belong"):
        Issuer.open(root=ours.root, issuing=ours.issuing, issuing_key=theirs.issuing_key)


def test_opening_refuses_an_issuing_certificate_below_another_root() -> None:
    """The pin of the mesh is the root; a chain to another one helps nobody."""
    ours, theirs = authority(), new_authority()
    with pytest.raises(LedgerDamagedError, match="not signed by the root"):
        Issuer.open(root=theirs.root, issuing=ours.issuing, issuing_key=ours.issuing_key)


@pytest.mark.parametrize("part", ["root", "issuing", "issuing_key"])
def test_opening_refuses_damage_in_every_part(part: str) -> None:
    """Garbage becomes a sentence, not a traceback."""
    created = authority()
    parts = {"root": created.root, "issuing": created.issuing, "issuing_key": created.issuing_key}
    with pytest.raises(LedgerDamagedError):
        Issuer.open(**{**parts, part: b"garbage"})


def test_opening_refuses_a_root_as_issuing_certificate() -> None:
    """The root has no name constraints; signing leaves with it would know no bounds."""
    created = authority()
    with pytest.raises(LedgerDamagedError, match="name constraints"):
        Issuer.open(root=created.root, issuing=created.root, issuing_key=created.root_key)


def test_the_facts_are_those_of_the_certificate() -> None:
    """The lint must read what clients read."""
    facts = facts_of(x509.load_der_x509_certificate(authority().issuing))
    assert facts.names == ("home.arpa", "internal")
    assert [str(network) for network in facts.networks] == [
        "10.0.0.0/8",
        "192.168.0.0/16",
        "fc00::/7",
    ]
    assert issuer().not_after == NOW + 730 * DAY


def test_an_issuer_shows_no_key() -> None:
    """Tracebacks and logs print representations."""
    fresh = new_authority()
    assert fresh.issuing_key.hex() not in repr(issuer_of(fresh))


def test_a_signature_verifies_with_the_issuing_certificate() -> None:
    """ECDSA with SHA-256 in DER, as the name says."""
    signature = issuer().sign(b"message")
    key = x509.load_der_x509_certificate(issuer().issuing_der).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signature, b"message", ec.ECDSA(hashes.SHA256()))
