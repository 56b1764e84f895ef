"""The issuing key on its way, as somebody in between would take, keep or change it."""

import contextlib
import io
import logging
import traceback
from dataclasses import replace as bound_to

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.pretty import Pretty

from broker.errors import KeyRejectedError
from broker.pki.authority import fingerprint
from broker.pki.chain import utc
from broker.pki.issuer import Issuer
from broker.pki.seal import Box, Slot, open_with_passphrase
from broker.pki.transfer import (
    Binding,
    KeyMaterial,
    TransferKey,
    check_material,
    gather_material,
    new_transfer_key,
    open_material,
    seal_material,
)
from broker.wire.codec import encode_body
from tests.pki.making import (
    DAY,
    MESH_ID,
    NOW,
    PASSPHRASE,
    TOTP_SECRET,
    authority,
    new_authority,
    sealed_keys,
)

PIN = fingerprint(authority().root)
BINDING = Binding(mesh_id=MESH_ID, giver="1a" * 32, taker="2b" * 32, term=3)
replace = msgspec.structs.replace


@pytest.fixture(scope="module", name="material")
def _material() -> KeyMaterial:
    sealed = sealed_keys()
    opened = open_with_passphrase(sealed, PASSPHRASE)
    return gather_material(sealed, opened, root=authority().root, issuing=authority().issuing)


@pytest.fixture(scope="module", name="key")
def _key() -> TransferKey:
    return new_transfer_key()


def _refusal(material: KeyMaterial, *, pin: str = PIN, now: int = NOW) -> str:
    with pytest.raises(KeyRejectedError) as refused:
        check_material(material, pin=pin, mesh_id=MESH_ID, now=now)
    return refused.value.detail


def _stays_shut(sealed: bytes, key: TransferKey, binding: Binding = BINDING) -> None:
    with pytest.raises(KeyRejectedError, match="does not open"):
        open_material(sealed, key, binding)


def test_what_an_unlocked_primary_hands_over_makes_an_issuer(
    material: KeyMaterial, key: TransferKey
) -> None:
    """The whole way: gather, seal, open, check, sign."""
    received = open_material(seal_material(material, key.public, BINDING), key, BINDING)
    assert received == material
    check_material(received, pin=PIN, mesh_id=MESH_ID, now=NOW)
    Issuer.open(root=received.root, issuing=received.issuing, issuing_key=received.issuing_key)
    assert received.totp_secret == TOTP_SECRET


def test_neither_the_root_key_nor_a_credential_slot_is_handed_over(material: KeyMaterial) -> None:
    """A credential file is of one machine; the root key has no business on a second one (P3)."""
    assert {slot.kind for slot in material.slots} == {"passphrase"}
    assert authority().root_key not in encode_body(material)


def test_a_package_for_another_key_does_not_open(material: KeyMaterial, key: TransferKey) -> None:
    """Whoever records the wire, or asks a second time, gets nothing from the first answer."""
    _stays_shut(seal_material(material, key.public, BINDING), new_transfer_key())


@pytest.mark.parametrize(
    "other",
    [
        bound_to(BINDING, taker="2c" * 32),
        bound_to(BINDING, giver="1b" * 32),
        bound_to(BINDING, giver=BINDING.taker, taker=BINDING.giver),
        bound_to(BINDING, term=4),
        bound_to(BINDING, mesh_id="ef" * 16),
    ],
    ids=["taker", "giver", "swapped", "term", "mesh"],
)
def test_a_package_for_another_certificate_term_or_mesh_does_not_open(
    material: KeyMaterial, key: TransferKey, other: Binding
) -> None:
    """A package of a former primary, or for a node of that name before, is worth nothing."""
    _stays_shut(seal_material(material, key.public, other), key)


def test_no_two_bindings_have_the_same_encoding() -> None:
    """A part that grows at the cost of its neighbour is another binding."""
    shifted = bound_to(BINDING, giver=BINDING.giver + "2b", taker=BINDING.taker[2:])
    assert shifted.giver + shifted.taker == BINDING.giver + BINDING.taker
    assert shifted.encoded() != BINDING.encoded()
    assert BINDING.encoded().startswith(b"certmesh key transfer 1\x00")


hexes = st.text("0123456789abcdef", max_size=64)
bindings = st.builds(Binding, hexes, hexes, hexes, st.integers(0, 2**53 - 1))


@given(one=bindings, other=bindings)
def test_equal_encodings_mean_equal_bindings(one: Binding, other: Binding) -> None:
    """Property: the encoding is injective."""
    assert (one.encoded() == other.encoded()) == (one == other)


def test_every_flipped_bit_of_a_package_is_noticed(material: KeyMaterial, key: TransferKey) -> None:
    """Sampled over the whole of it; the first 32 bytes are the sender's one-time key."""
    sealed = seal_material(material, key.public, BINDING)
    for index in [*range(40), *range(40, len(sealed), 29), len(sealed) - 1]:
        flipped = bytearray(sealed)
        flipped[index] ^= 1 << (index % 7)
        _stays_shut(bytes(flipped), key)


@pytest.mark.parametrize("sealed", [b"", b"\x00" * 16, b"\x00" * 200, b"\xff" * 65_536])
def test_garbage_is_a_rejection(key: TransferKey, sealed: bytes) -> None:
    """What a peer sends can only be refused."""
    _stays_shut(sealed, key)


@pytest.mark.parametrize("public_key", [b"", b"\x00" * 32, b"\x01" + b"\x00" * 31, b"\x09" * 33])
def test_no_package_is_sealed_to_a_hostile_public_key(
    material: KeyMaterial, public_key: bytes
) -> None:
    """A point of small order makes a shared secret that everybody knows (RFC 7748 section 6.1)."""
    with pytest.raises(KeyRejectedError, match="usable X25519"):
        seal_material(material, public_key, BINDING)


def test_two_packages_of_the_same_material_differ(material: KeyMaterial, key: TransferKey) -> None:
    """Each has a one-time key of its own."""
    first, second = (seal_material(material, key.public, BINDING) for _ in range(2))
    assert first[:32] != second[:32]
    assert first[32:] != second[32:]


small = st.binary(max_size=200)
exact = {size: st.binary(min_size=size, max_size=size) for size in (12, 16, 32)}
slots = st.builds(
    Slot,
    slot_id=st.text(max_size=40),
    kind=st.just("passphrase"),
    created_at=st.integers(0, 2**40),
    salt=exact[16],
    memory_kib=st.integers(0, 4_194_304),
    passes=st.integers(0, 1024),
    lanes=st.integers(0, 1024),
    box=st.builds(Box, nonce=exact[12], ciphertext=small),
)
materials = st.builds(
    KeyMaterial,
    mesh_id=st.text(max_size=64),
    root=small,
    issuing=small,
    issuing_key=small,
    totp_secret=small,
    wrapping_key=exact[32],
    slots=st.lists(slots, max_size=4).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(material=materials, binding=bindings)
def test_whatever_is_sealed_comes_back(material: KeyMaterial, binding: Binding) -> None:
    """Property: sealing and opening are inverse, and the clear text never shows."""
    key = new_transfer_key()
    sealed = seal_material(material, key.public, binding)
    assert open_material(sealed, key, binding) == material
    assert material.wrapping_key not in sealed


def test_a_swapped_issuing_key_is_rejected(material: KeyMaterial) -> None:
    """The taker would sign what nobody accepts, once it is too late."""
    swapped = replace(material, issuing_key=new_authority().issuing_key)
    assert "issuing key: it does not belong to the issuing certificate" in _refusal(swapped)


def test_an_issuing_key_that_lies_about_its_public_half_is_rejected(material: KeyMaterial) -> None:
    """The container of a private key repeats the public one; only the scalar signs."""
    other = ec.generate_private_key(ec.SECP256R1())
    point = Encoding.X962, PublicFormat.UncompressedPoint
    theirs = other.public_key().public_bytes(*point)
    ours = Issuer.open(
        root=material.root, issuing=material.issuing, issuing_key=material.issuing_key
    )._public.public_bytes(*point)
    lying = _pkcs8(other).replace(theirs, ours)
    assert ours in lying
    assert "issuing key: it is not a readable" in _refusal(replace(material, issuing_key=lying))


@pytest.mark.parametrize("kind", ["rubbish", "ed25519"])
def test_an_issuing_key_that_is_no_such_key_is_rejected(material: KeyMaterial, kind: str) -> None:
    """Not a crash when it is used for the first time."""
    key = b"rubbish" if kind == "rubbish" else _pkcs8(ed25519.Ed25519PrivateKey.generate())
    assert "the issuing key: " in _refusal(replace(material, issuing_key=key))


def _pkcs8(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def test_a_pin_mismatch_is_rejected(material: KeyMaterial) -> None:
    """A whole, consistent CA that is not the one this node joined."""
    other = new_authority()
    whole = replace(material, root=other.root, issuing=other.issuing, issuing_key=other.issuing_key)
    assert _refusal(whole).endswith("accepted: the root certificate is not the pinned one")


def test_an_issuing_certificate_of_another_root_is_rejected(material: KeyMaterial) -> None:
    """Even with the key that fits it."""
    other = new_authority()
    detail = _refusal(replace(material, issuing=other.issuing, issuing_key=other.issuing_key))
    assert detail.endswith(
        "issuing certificate: it was not signed by the root certificate of this mesh"
    )


def test_the_root_as_its_own_issuing_certificate_is_rejected(material: KeyMaterial) -> None:
    """It is a CA below the root, and its key fits; it could certify the world."""
    keys = {"issuing": authority().root, "issuing_key": authority().root_key}
    assert "no name constraints" in _refusal(replace(material, **keys))


@pytest.mark.parametrize(("ca_root", "ca_issuing"), [(True, False), (False, True)])
def test_a_chain_of_certificates_that_are_no_cas_is_rejected(
    material: KeyMaterial, *, ca_root: bool, ca_issuing: bool
) -> None:
    """Correctly signed, with the right key; but what it would sign nobody accepts."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root = _certificate("root", root_key, root_key, ca=ca_root)
    issuing = _certificate("issuing", key, root_key, ca=ca_issuing)
    made = replace(material, root=root, issuing=issuing, issuing_key=_pkcs8(key))
    detail = _refusal(made, pin=fingerprint(root))
    what = "issuing" if ca_root else "root"
    assert detail.endswith(f"accepted: the {what} certificate: it is not a CA certificate")


def _certificate(
    name: str, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, *, ca: bool
) -> bytes:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder(named("root"), named(name), key.public_key(), 9)
        .not_valid_before(utc(NOW - 60))
        .not_valid_after(utc(NOW + DAY))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.NameConstraints([x509.DNSName("home.arpa")], None), critical=True)
        .sign(signer, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def test_material_of_another_mesh_is_rejected(material: KeyMaterial) -> None:
    """Boxes sealed under that name would never open here."""
    assert "another mesh" in _refusal(replace(material, mesh_id="ef" * 16))


def test_an_expired_or_future_ca_is_rejected(material: KeyMaterial) -> None:
    """A standby that could never serve must not be counted as ready."""
    assert "issuing certificate: it has expired" in _refusal(material, now=NOW + 731 * DAY)
    assert "root certificate: it has expired" in _refusal(material, now=NOW + 3651 * DAY)
    assert "not valid yet" in _refusal(material, now=NOW - DAY)


def test_slots_that_are_not_the_meshs_passphrase_are_rejected(material: KeyMaterial) -> None:
    """A credential slot of the giver would let its machine open this one's disk."""
    assert "slots" in _refusal(replace(material, slots=()))
    assert "slots" in _refusal(replace(material, slots=sealed_keys().slots))


@pytest.mark.parametrize("field", ["root", "issuing"])
def test_rubbish_for_a_certificate_is_rejected(material: KeyMaterial, field: str) -> None:
    """What a peer sends can only be refused."""
    assert "not a readable X.509" in _refusal(replace(material, **{field: b"rubbish"}))


def test_every_mismatch_is_named_at_once(material: KeyMaterial) -> None:
    """One look at the log is enough."""
    wrong = replace(material, mesh_id="ef" * 16, slots=(), issuing_key=new_authority().issuing_key)
    detail = _refusal(wrong, pin="00" * 32, now=NOW + 731 * DAY)
    assert detail.count(";") == 4


def test_material_that_is_not_material_is_rejected_without_showing_it(key: TransferKey) -> None:
    """A newer release, or a broken one; the words of a decoder could quote a secret."""
    wrong = msgspec.msgpack.encode({"mesh_id": "secret-" * 30})
    sealed = _sealed_raw(wrong, key)
    with pytest.raises(KeyRejectedError, match="no key material") as refused:
        open_material(sealed, key, BINDING)
    assert "secret-" not in "".join(traceback.format_exception(refused.value))


def _sealed_raw(content: bytes, key: TransferKey) -> bytes:
    """Seal any bytes the way the giver does."""
    raw = msgspec.Raw(content)
    return seal_material(raw, key.public, BINDING)  # type: ignore[arg-type]  # encodes as is


def test_a_wrapping_key_of_another_length_is_no_material(
    material: KeyMaterial, key: TransferKey
) -> None:
    """It would fail when the first box is made, half way through."""
    short = replace(material, wrapping_key=b"short")
    with pytest.raises(KeyRejectedError, match="no key material"):
        open_material(seal_material(short, key.public, BINDING), key, BINDING)


def test_no_secret_is_in_any_representation(
    material: KeyMaterial, key: TransferKey, caplog: pytest.LogCaptureFixture
) -> None:
    """Objects get logged by mistake, printed by consoles, and quoted in tracebacks."""
    console = Console(file=io.StringIO(), width=4000)
    console.print(Pretty(material), Pretty({"kept": material}))
    with caplog.at_level(logging.INFO), contextlib.suppress(KeyRejectedError):
        logging.getLogger("certmesh").info("accepted %s %r %r", material, material, key)
        check_material(material, pin="00" * 32, mesh_id="", now=0)
    assert isinstance(console.file, io.StringIO)
    shown = [repr(material), str(material), f"{[material]}", repr(key), str(BINDING)]
    everything = "".join([*shown, console.file.getvalue(), caplog.text])
    secrets = (material.issuing_key, material.totp_secret, material.wrapping_key)
    for secret in (*secrets, key.private.private_bytes_raw()):
        for form in (repr(secret)[2:-1], secret.hex(), repr(secret[:8])[2:-1]):
            assert form not in everything
    assert MESH_ID in repr(material)
    assert repr(key) == f"TransferKey(public={key.public!r})"
