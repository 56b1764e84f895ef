"""The issuing key on its way from a primary to a nominated standby.

The taker makes a key for this one transfer and keeps it in memory; the package opens only with it,
and only for the binding it was sealed for: mesh, certificates of both sides, term of the primary.
A package that was recorded, or asked for by somebody else, is worth nothing.

Sealing does not prove who sealed: anybody can seal to a public key. What arrives is believed after
`check_material` has held it against the pin, and mutual TLS has said who answered.

Source: HPKE, RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import load_der_private_key

from broker.errors import KeyRejectedError, MeshError
from broker.pki.authority import fingerprint
from broker.pki.chain import (
    PARSE_ERRORS,
    check_authority,
    check_current,
    check_issued,
    read_certificate,
)
from broker.pki.profile import facts_of
from broker.pki.seal import TRAVELLING, KeyMaterial, OpenedKeys, SealedKeys
from broker.wire.codec import decode_body, encode_body

__all__ = [
    "Binding",
    "KeyMaterial",
    "TransferKey",
    "check_material",
    "gather_material",
    "new_transfer_key",
    "open_material",
    "seal_material",
]

LABEL = b"certmesh key transfer 1\x00"
LENGTH_BYTES = 2
TERM_BYTES = 8
ASK_AGAIN = "ask the primary for the key again"


@dataclass(frozen=True, slots=True)
class TransferKey:
    """A key pair for one transfer; only `public` ever leaves the process."""

    private: X25519PrivateKey = field(repr=False)
    public: bytes


@dataclass(frozen=True, slots=True)
class Binding:
    """What a package is for; both sides know all of it without asking each other.

    Attributes:
        mesh_id: The mesh.
        giver: Fingerprint of the primary's own certificate.
        taker: Fingerprint of the standby's own certificate.
        term: Of the primary that gives.
    """

    mesh_id: str
    giver: str
    taker: str
    term: int

    def encoded(self) -> bytes:
        """Return the `info` of HPKE: each part with its length, so that no two bindings agree."""
        parts = [part.encode() for part in (self.mesh_id, self.giver, self.taker)]
        framed = [len(part).to_bytes(LENGTH_BYTES) + part for part in parts]
        return b"".join([LABEL, *framed, self.term.to_bytes(TERM_BYTES)])


def new_transfer_key() -> TransferKey:
    """Return a fresh key pair for one transfer."""
    private = X25519PrivateKey.generate()
    return TransferKey(private, private.public_key().public_bytes_raw())


def gather_material(
    sealed: SealedKeys, opened: OpenedKeys, *, root: bytes, issuing: bytes, unattended: bool = True
) -> KeyMaterial:
    """Return what an unlocked key holder hands over; certificates as DER.

    `unattended` is the policy's word about slots that open the keys without a person.

    Slots of one machine stay behind, such as its credential file. So does the root key.
    """
    return KeyMaterial(
        mesh_id=sealed.mesh_id,
        root=root,
        issuing=issuing,
        issuing_key=opened.issuing_key,
        totp_secret=opened.totp_secret,
        wrapping_key=opened.wrapping_key,
        slots=sealed.of_kind(*TRAVELLING),
        unattended=unattended,
    )


def seal_material(material: KeyMaterial, public_key: bytes, binding: Binding) -> bytes:
    """Return `material` for the owner of `public_key` (X25519, raw) alone.

    Raises:
        KeyRejectedError: Not a usable public key, such as a point of small order.
    """
    try:
        taker = X25519PublicKey.from_public_bytes(public_key)
        return _suite().encrypt(encode_body(material), taker, info=binding.encoded())
    except ValueError:
        raise KeyRejectedError("the key to seal for is not a usable X25519 public key") from None


def open_material(sealed: bytes, key: TransferKey, binding: Binding) -> KeyMaterial:
    """Return what was sealed to `key` for exactly this binding; nothing in it is believed yet.

    Raises:
        KeyRejectedError: It does not open, or is no key material.
    """
    try:
        raw = _suite().decrypt(sealed, key.private, info=binding.encoded())
    except (InvalidTag, ValueError):
        raise KeyRejectedError(
            "the key package does not open: sealed for another key, certificate, mesh or term,"
            " or changed on its way",
            hint=ASK_AGAIN,
        ) from None
    try:
        return decode_body(raw, KeyMaterial)
    except MeshError:
        # Without the decoder's words: they describe what should stay secret.
        raise KeyRejectedError(
            "the key package opens, but holds no key material of this release",
            hint="use the same release on both nodes",
        ) from None


def check_material(material: KeyMaterial, *, pin: str, mesh_id: str, now: int) -> None:
    """Verify that received keys are those of the pinned CA of this mesh, and can be used now.

    Raises:
        KeyRejectedError: The detail has every mismatch.
    """
    faults = []
    if fingerprint(material.root) != pin:
        faults.append("the root certificate is not the pinned one")
    if material.mesh_id != mesh_id:
        faults.append("it belongs to another mesh")
    kinds = {slot.kind for slot in material.slots}
    if "passphrase" not in kinds or kinds - set(TRAVELLING):
        faults.append("it brings other slots than those of passphrases and of the kit")
    faults += _certificate_faults(material, now)
    if faults:
        raise KeyRejectedError(
            f"the received CA key was not accepted: {'; '.join(faults)}", hint=ASK_AGAIN
        )


def _certificate_faults(material: KeyMaterial, now: int) -> list[str]:
    try:
        root, issuing = read_certificate(material.root), read_certificate(material.issuing)
    except ValueError as error:
        return [f"a certificate in it: {error}"]
    checks: tuple[tuple[str, Callable[[], object]], ...] = (
        ("root certificate", lambda: check_authority(root)),
        ("root certificate", lambda: check_current(root, now)),
        ("issuing certificate", lambda: check_authority(issuing)),
        ("issuing certificate", lambda: check_issued(issuing, root)),
        ("issuing certificate", lambda: facts_of(issuing)),
        ("issuing certificate", lambda: check_current(issuing, now)),
        ("issuing key", lambda: _check_key(material.issuing_key, issuing)),
    )
    outcomes = ((what, _refusal(check)) for what, check in checks)
    return [f"the {what}: {refusal}" for what, refusal in outcomes if refusal]


def _refusal(check: Callable[[], object]) -> str:
    try:
        check()
    except ValueError as error:
        return str(error)
    return ""


def _check_key(der: bytes, issuing: x509.Certificate) -> None:
    # Loading refuses a key whose stated public half is not its own.
    try:
        key = load_der_private_key(der, password=None)
    except PARSE_ERRORS:
        raise ValueError("it is not a readable PKCS #8 key") from None
    if key.public_key() != issuing.public_key():
        raise ValueError("it does not belong to the issuing certificate")


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
