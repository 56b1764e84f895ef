"""Bundles and statements while two CAs of one mesh are trusted, as a thief of one key would try."""

from dataclasses import replace

import msgspec
import pytest
from cryptography import x509

from broker.errors import BundleRejectedError, ClaimRejectedError
from broker.pki.authority import CreatedAuthority, create_authority, fingerprint
from broker.pki.bundle import sign_bundle, verify_bundle
from broker.pki.chain import is_younger, key_id_of, was_issued_by
from broker.pki.request import parse_request
from broker.pki.statement import Statements, sign_beat, sign_head
from broker.units import UnixSeconds
from broker.wire.claims import Head, HeadStatement, PrimaryBeat
from broker.wire.roster import BundleBody, SignedBundle
from tests.pki.making import (
    MESH_ID,
    NOW,
    authority,
    ca_profile,
    csr,
    issuer,
    issuer_of,
    leaf_profile,
    new_authority,
)

PIN = fingerprint(authority().root)
NEXT: CreatedAuthority = new_authority(now=NOW + 10)
NEXT_PIN = fingerprint(NEXT.root)
LATER = NOW + 60


def body(pin: str = PIN, **changes: object) -> BundleBody:
    """Return a bundle under the CA of this pin."""
    found = BundleBody(
        mesh_id=MESH_ID,
        pin=pin,
        head=Head(term=3, sequence=41, hash="00" * 32, primary="nas", issued_at=UnixSeconds(NOW)),
        bundle_sequence=40,
        key_holders=(),
        revoked_serials=(),
        revoked_members=(),
    )
    return msgspec.structs.replace(found, **changes)


def verified(signed: SignedBundle, *others: bytes) -> BundleBody:
    """Verify as a node that pins the old CA."""
    return verify_bundle(
        signed, root=authority().root, pin=PIN, mesh_id=MESH_ID, now=LATER, others=others
    )


def rejection(signed: SignedBundle, *others: bytes) -> str:
    """Return why it was rejected."""
    with pytest.raises(BundleRejectedError) as rejected:
        verified(signed, *others)
    return rejected.value.detail


def test_a_bundle_of_the_next_ca_is_believed_where_its_root_is_trusted() -> None:
    """After the switch, by a member that heard of it before."""
    signed = sign_bundle(issuer_of(NEXT), body(NEXT_PIN, roots=(authority().root,)))
    assert verified(signed, NEXT.root).pin == NEXT_PIN


def test_a_bundle_of_the_next_ca_is_rejected_where_nobody_spoke_of_it() -> None:
    """A root inside the bundle is no reason to believe the bundle."""
    signed = sign_bundle(issuer_of(NEXT), body(NEXT_PIN, roots=(NEXT.root,)))
    assert "was not signed by the root" in rejection(signed)


def test_a_bundle_has_to_name_the_root_it_is_signed_under() -> None:
    """The old CA cannot speak in the name of the next one, nor the other way round."""
    old_for_new = sign_bundle(issuer(), body(NEXT_PIN))
    new_for_old = sign_bundle(issuer_of(NEXT), body(PIN))
    for signed in (old_for_new, new_for_old):
        assert "another root" in rejection(signed, NEXT.root)


def test_a_further_root_that_is_no_root_is_rejected() -> None:
    """Whatever it names becomes an anchor of TLS: it has to be a CA that signed itself."""
    for der in (NEXT.issuing, b"rubbish"):
        signed = sign_bundle(issuer(), body(roots=(der,)))
        assert "further root" in rejection(signed)


def test_a_further_issuing_certificate_has_to_be_below_a_root_of_the_bundle() -> None:
    """Its word counts for beats and heads."""
    good = sign_bundle(issuer(), body(roots=(NEXT.root,), issuers=(NEXT.issuing,)))
    assert verified(good).issuers == (NEXT.issuing,)
    bad = sign_bundle(issuer(), body(issuers=(NEXT.issuing,)))
    assert "further issuing" in rejection(bad)


def test_statements_of_either_ca_are_believed_and_of_no_third() -> None:
    """A member hears the first beat of the new CA before it has the new bundle."""
    statements = Statements(authority().issuing, MESH_ID, NEXT.issuing)
    beat = PrimaryBeat(mesh_id=MESH_ID, primary="nas", term=3, number=1)
    head = HeadStatement(MESH_ID, body().head)
    for signer in (issuer(), issuer_of(NEXT)):
        assert statements.beat(sign_beat(signer, beat)) == beat
        assert statements.head(sign_head(signer, head)) == head
    with pytest.raises(ClaimRejectedError):
        statements.beat(sign_beat(issuer_of(new_authority()), beat))
    with pytest.raises(ClaimRejectedError):
        Statements(authority().issuing, MESH_ID).beat(sign_beat(issuer_of(NEXT), beat))


def test_the_second_ca_of_a_mesh_has_names_of_its_own() -> None:
    """Else a trust store with both would look for a leaf's issuer by name and find two."""
    profile = ca_profile()
    second = replace(profile, generation=2)
    names = []
    for made in (profile, second):
        created = create_authority(made, now=NOW, serials=(1, 2))
        found = (created.root, created.issuing)
        names += [x509.load_der_x509_certificate(der).subject.rfc4514_string() for der in found]
    assert len(set(names)) == 4


def test_a_leaf_tells_which_ca_signed_it() -> None:
    """Asked of every member before the old CA is retired."""
    leaf = issuer().sign_leaf(parse_request(csr()), leaf_profile())
    assert was_issued_by(leaf, key_id_of(authority().issuing))
    assert not was_issued_by(leaf, key_id_of(NEXT.issuing))


def test_of_two_roots_the_one_that_began_later_is_the_younger() -> None:
    """Equal ones are not: trust never swings between two."""
    assert is_younger(NEXT.root, authority().root)
    assert not is_younger(authority().root, NEXT.root)
    assert not is_younger(NEXT.root, NEXT.root)
