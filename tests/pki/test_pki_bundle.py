"""The trust bundle as an attacker on the LAN would forge it."""

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.errors import BundleRejectedError
from broker.pki.authority import fingerprint
from broker.pki.bundle import CONTEXT, sign_bundle, verify_bundle
from broker.pki.chain import utc
from broker.units import UnixSeconds
from broker.wire.claims import Head
from broker.wire.codec import encode_body
from broker.wire.roster import BundleBody, SignedBundle
from tests.pki.making import DAY, MESH_ID, NOW, authority, issuer, issuer_of, new_authority

PIN = fingerprint(authority().root)


def _body(mesh_id: str = MESH_ID, pin: str = PIN) -> BundleBody:
    return BundleBody(
        mesh_id=mesh_id,
        pin=pin,
        head=Head(term=3, sequence=41, hash="00" * 32, primary="nas", issued_at=UnixSeconds(NOW)),
        bundle_sequence=40,
        key_holders=(),
        revoked_serials=("0a",),
        revoked_members=("0b",),
    )


def _verify(signed: SignedBundle, now: int = NOW) -> BundleBody:
    return verify_bundle(signed, root=authority().root, pin=PIN, mesh_id=MESH_ID, now=now)


def _rejection(signed: SignedBundle, now: int = NOW) -> str:
    with pytest.raises(BundleRejectedError) as rejected:
        _verify(signed, now)
    return rejected.value.detail


def test_a_bundle_of_the_pinned_ca_is_believed() -> None:
    """The way every node learns who is revoked."""
    assert _verify(sign_bundle(issuer(), _body())) == _body()


def test_a_bundle_forged_with_an_own_ca_is_rejected() -> None:
    """The forger brings its own chain; only the pinned root counts (row 37)."""
    own = issuer_of(new_authority())
    assert "not signed by the root" in _rejection(sign_bundle(own, _body()))


def test_a_foreign_root_beside_a_foreign_bundle_is_rejected() -> None:
    """Replacing the stored root file does not replace the pin."""
    own = new_authority()
    signed = sign_bundle(issuer_of(own), _body())
    with pytest.raises(BundleRejectedError, match="not the pinned one"):
        verify_bundle(signed, root=own.root, pin=PIN, mesh_id=MESH_ID, now=NOW)


def test_our_issuing_certificate_with_a_foreign_signature_is_rejected() -> None:
    """The certificate is public; the signature is what counts."""
    own = sign_bundle(issuer_of(new_authority()), _body())
    signed = SignedBundle(own.body, issuer().issuing_der, own.signature)
    assert "signature of the bundle" in _rejection(signed)


def test_a_member_leaf_cannot_sign_bundles() -> None:
    """Only a CA certificate directly below the root may: a leaf of the root is none."""
    key = ec.generate_private_key(ec.SECP256R1())
    root_key = serialization.load_der_private_key(authority().root_key, password=None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    root = x509.load_der_x509_certificate(authority().root)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(root.subject)
        .public_key(key.public_key())
        .serial_number(9)
        .not_valid_before(utc(NOW - 60))
        .not_valid_after(utc(NOW + DAY))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=False), critical=True)
        .sign(root_key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )
    raw = encode_body(_body())
    signature = key.sign(CONTEXT + raw, ec.ECDSA(hashes.SHA256()))
    assert "not a CA certificate" in _rejection(SignedBundle(raw, leaf, signature))


def _usage(*, key_cert_sign: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def test_a_bundle_of_another_mesh_is_rejected() -> None:
    """One household may run two meshes under one CA backup (row 38)."""
    signed = sign_bundle(issuer(), _body(mesh_id="ef" * 16))
    assert "another mesh" in _rejection(signed)


def test_a_bundle_that_names_another_pin_is_rejected() -> None:
    """A CA change is never smuggled in by a bundle."""
    assert "another root" in _rejection(sign_bundle(issuer(), _body(pin="00" * 32)))


@pytest.mark.parametrize("field", ["body", "issuing", "signature"])
def test_every_flipped_bit_is_rejected(field: str) -> None:
    """Sampled over all three parts."""
    signed = sign_bundle(issuer(), _body())
    raw = getattr(signed, field)
    for index in range(0, len(raw), 7):
        flipped = bytearray(raw)
        flipped[index] ^= 1 << (index % 8)
        with pytest.raises(BundleRejectedError):
            _verify(msgspec.structs.replace(signed, **{field: bytes(flipped)}))


@pytest.mark.parametrize("field", ["body", "issuing", "signature"])
@pytest.mark.parametrize("raw", [b"", b"\x00" * 16, b"\xff" * 200])
def test_garbage_in_any_part_is_a_rejection(field: str, raw: bytes) -> None:
    """What a peer sends can only be refused."""
    signed = sign_bundle(issuer(), _body())
    with pytest.raises(BundleRejectedError):
        _verify(msgspec.structs.replace(signed, **{field: raw}))


def test_an_expired_or_future_issuing_certificate_is_rejected() -> None:
    """A key that was retired years ago may be in anybody's hands."""
    signed = sign_bundle(issuer(), _body())
    assert "expired" in _rejection(signed, NOW + 730 * DAY + 1)
    assert "not valid yet" in _rejection(signed, NOW - DAY)
    assert _verify(signed, NOW + 730 * DAY) == _body()


def test_a_signature_over_anything_else_is_no_bundle() -> None:
    """The issuing key signs other things too; the label keeps them apart."""
    raw = encode_body(_body())
    signed = SignedBundle(raw, issuer().issuing_der, issuer().sign(raw))
    assert "signature of the bundle" in _rejection(signed)


def test_a_signed_body_that_is_no_bundle_is_rejected() -> None:
    """Even the CA's own signature does not make other bytes a roster."""
    raw = encode_body(_body().head)
    signed = SignedBundle(raw, issuer().issuing_der, issuer().sign(CONTEXT + raw))
    assert "cannot be read" in _rejection(signed)


def test_a_bundle_from_a_newer_release_with_extra_fields_is_believed() -> None:
    """Evolution: unknown fields are tolerated, and still covered by the signature (row 55)."""
    fields = msgspec.msgpack.decode(encode_body(_body()))
    raw = msgspec.msgpack.encode({**fields, "added_later": 1})
    signed = SignedBundle(raw, issuer().issuing_der, issuer().sign(CONTEXT + raw))
    assert _verify(signed) == _body()
