"""CA keys at rest.

A random wrapping key seals the issuing key and the TOTP secret; each slot seals the wrapping key in
its own way, so a new way to unlock never touches the keys. The root key is sealed by the
passphrase alone, with a salt of its own: no slot and no running broker can open it.

A standby has the same wrapping key and the passphrase slots of the mesh, so one passphrase unlocks
every key holder; its credential slot is its own, and it has no root key at all.

Every box is AES-256-GCM whose associated text names the mesh and the purpose: a box moved to
another place, or to another mesh, does not open. Randomness is passed in.

Source: Argon2id, RFC 9106; HKDF, RFC 5869; GCM with random 96-bit nonces, NIST SP 800-38D 8.2.2
(each key here seals a handful of boxes in its life).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta
from typing_extensions import override

from broker.errors import BadPassphraseError, LedgerDamagedError, NotFoundError
from broker.pki.authority import CreatedAuthority
from broker.wire.base import Body
from broker.wire.ids import DER

SEAL_VERSION = 1
KEY_BYTES = 32
NONCE_BYTES = 12
SALT_BYTES = 16
SLOTS_MAX = 16
SLOT_ID_BYTES = 8
CREDENTIAL_BYTES = 32
MEMORY_KIB_MAX = 4_194_304
"""4 GiB: a damaged number must not take the machine down."""

SealedBytes = Annotated[bytes, Meta(max_length=16_384)]
Nonce = Annotated[bytes, Meta(min_length=NONCE_BYTES, max_length=NONCE_BYTES)]
Salt = Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
MemoryKiB = Annotated[int, Meta(ge=0, le=MEMORY_KIB_MAX)]
Small = Annotated[int, Meta(ge=0, le=1024)]
ShortText = Annotated[str, Meta(max_length=128)]
SlotKind = Literal["passphrase", "credential"]
Entropy = Callable[[int], bytes]


class Box(Body, frozen=True):
    """One sealed secret."""

    nonce: Nonce
    ciphertext: SealedBytes


class Slot(Body, frozen=True):
    """One way to open the wrapping key; the costs are 0 in a credential slot."""

    slot_id: ShortText
    kind: SlotKind
    created_at: int
    salt: Salt
    memory_kib: MemoryKiB
    passes: Small
    lanes: Small
    box: Box


class SealedRoot(Body, frozen=True):
    """The root key, for the passphrase alone."""

    salt: Salt
    memory_kib: MemoryKiB
    passes: Small
    lanes: Small
    box: Box


class SealedKeys(Body, frozen=True):
    """Everything secret of a CA that a node holds, as it lies on disk; a standby has no root."""

    version: int
    mesh_id: ShortText
    root: SealedRoot | None
    issuing_key: Box
    totp: Box
    slots: tuple[Slot, ...]


@dataclass(frozen=True, slots=True)
class KDFCost:
    """Argon2id parameters; `memory_kib` at least 8 per lane (RFC 9106 3.1)."""

    memory_kib: int
    passes: int
    lanes: int


@dataclass(frozen=True, slots=True)
class OpenedKeys:
    """The everyday secrets; the representation shows only the slot that opened them."""

    slot_id: str
    issuing_key: bytes = field(repr=False)
    totp_secret: bytes = field(repr=False)
    wrapping_key: bytes = field(repr=False)


class KeyMaterial(Body, frozen=True):
    """What a standby needs to become primary, in the clear; it is on the wire only sealed.

    The representation, also the one that consoles ask for, shows only the mesh.
    """

    mesh_id: ShortText
    root: DER
    issuing: DER
    issuing_key: SealedBytes
    totp_secret: SealedBytes
    wrapping_key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    slots: Annotated[tuple[Slot, ...], Meta(max_length=SLOTS_MAX)]

    @override
    def __repr__(self) -> str:
        return f"KeyMaterial(mesh_id={self.mesh_id!r})"

    @override
    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("mesh_id", self.mesh_id)]


def seal_keys(  # noqa: PLR0913 (every secret and every choice is named once, here)
    created: CreatedAuthority,
    *,
    mesh_id: str,
    totp_secret: bytes,
    passphrase: bytes,
    credential: bytes | None,
    kdf: KDFCost,
    entropy: Entropy,
    now: int,
) -> SealedKeys:
    """Return the sealed form of a new CA's keys. Slow: two Argon2id derivations.

    Args:
        created: The new CA.
        mesh_id: Bound into every box.
        totp_secret: The enrollment secret.
        passphrase: Opens the keys, and alone opens the root key.
        credential: 32 random bytes that open the keys without a person, or None.
        kdf: Cost of trying one passphrase.
        entropy: Returns that many fresh random bytes.
        now: Wall time for the slots.

    Raises:
        ValueError: Empty passphrase, or a credential of another length.
    """
    if not passphrase or (credential is not None and len(credential) != CREDENTIAL_BYTES):
        raise ValueError("an empty passphrase or a credential of the wrong length")
    sealer = _Sealer(mesh_id, entropy, now)
    wrapping_key = entropy(KEY_BYTES)
    slots = [sealer.passphrase_slot(wrapping_key, passphrase, kdf)]
    if credential is not None:
        slots.append(sealer.credential_slot(wrapping_key, credential))
    return SealedKeys(
        version=SEAL_VERSION,
        mesh_id=mesh_id,
        root=sealer.root(created.root_key, passphrase, kdf),
        issuing_key=sealer.box(wrapping_key, "issuing-key", created.issuing_key),
        totp=sealer.box(wrapping_key, "totp", totp_secret),
        slots=tuple(slots),
    )


def seal_for_standby(
    material: KeyMaterial, *, credential: bytes | None, entropy: Entropy, now: int
) -> SealedKeys:
    """Return received keys in the form this node keeps them. Fast: no passphrase is needed.

    The passphrase slots stay as they came: with the same wrapping key behind them the passphrase
    of the mesh opens them here too. The credential slot is this node's own.

    Args:
        material: Checked before.
        credential: 32 random bytes of this node that open the keys without a person, or None.
        entropy: Returns that many fresh random bytes.
        now: Wall time for the slot.

    Raises:
        ValueError: A credential of another length, or nothing would ever open the result.
    """
    slots = [slot for slot in material.slots if slot.kind == "passphrase"]
    if not slots or (credential is not None and len(credential) != CREDENTIAL_BYTES):
        raise ValueError("no passphrase slot or a credential of the wrong length")
    sealer, wrapping_key = _Sealer(material.mesh_id, entropy, now), material.wrapping_key
    if credential is not None:
        slots.append(sealer.credential_slot(wrapping_key, credential))
    return SealedKeys(
        version=SEAL_VERSION,
        mesh_id=material.mesh_id,
        root=None,
        issuing_key=sealer.box(wrapping_key, "issuing-key", material.issuing_key),
        totp=sealer.box(wrapping_key, "totp", material.totp_secret),
        slots=tuple(slots),
    )


def open_with_passphrase(sealed: SealedKeys, passphrase: bytes) -> OpenedKeys:
    """Return the everyday secrets. Slow: one Argon2id derivation per passphrase slot.

    Raises:
        BadPassphraseError: No slot opens with it.
        LedgerDamagedError: A slot opened, what it guards did not.
    """
    for slot in sealed.slots:
        if slot.kind == "passphrase":
            wrapping_key = _unwrapped(sealed, slot, _stretched(slot, passphrase))
            if wrapping_key is not None:
                return _opened(sealed, slot, wrapping_key)
    raise _wrong_passphrase()


def open_with_credential(sealed: SealedKeys, credential: bytes) -> OpenedKeys:
    """Return the everyday secrets. Fast: the credential has 256 bits and needs no stretching.

    Raises:
        BadPassphraseError: No slot opens with it.
        LedgerDamagedError: A slot opened, what it guards did not.
    """
    for slot in sealed.slots:
        if slot.kind == "credential":
            key = _expanded(slot.salt, sealed.mesh_id, credential)
            wrapping_key = _unwrapped(sealed, slot, key)
            if wrapping_key is not None:
                return _opened(sealed, slot, wrapping_key)
    raise BadPassphraseError(
        "the credential file does not open the keys of this CA",
        hint="unlock with the passphrase: certmesh ca unlock",
    )


def open_root(sealed: SealedKeys, passphrase: bytes) -> bytes:
    """Return the root key as PKCS #8 DER. Slow.

    Raises:
        NotFoundError: This node never had it: only the node that made the mesh does.
        BadPassphraseError: Not the passphrase it was sealed with.
    """
    root = sealed.root
    if root is None:
        raise NotFoundError(
            "this node does not hold the root key; standbys never receive it",
            hint="use the node that made the mesh, or a backup of its CA directory",
        )
    key = _open(_stretched(root, passphrase), sealed.mesh_id, "root-key", root.box)
    if key is None:
        raise _wrong_passphrase()
    return key


@dataclass(frozen=True, slots=True)
class _Sealer:
    mesh_id: str
    entropy: Entropy
    now: int

    def box(self, key: bytes, purpose: str, secret: bytes) -> Box:
        nonce = self.entropy(NONCE_BYTES)
        return Box(nonce, AESGCM(key).encrypt(nonce, secret, _label(self.mesh_id, purpose)))

    def root(self, root_key: bytes, passphrase: bytes, kdf: KDFCost) -> SealedRoot:
        salt = self.entropy(SALT_BYTES)
        box = self.box(_argon2id(salt, kdf, passphrase), "root-key", root_key)
        return SealedRoot(salt, kdf.memory_kib, kdf.passes, kdf.lanes, box)

    def passphrase_slot(self, wrapping_key: bytes, passphrase: bytes, kdf: KDFCost) -> Slot:
        salt = self.entropy(SALT_BYTES)
        slot_id, box = self._wrapped("passphrase", _argon2id(salt, kdf, passphrase), wrapping_key)
        cost = (kdf.memory_kib, kdf.passes, kdf.lanes)
        return Slot(slot_id, "passphrase", self.now, salt, *cost, box)

    def credential_slot(self, wrapping_key: bytes, credential: bytes) -> Slot:
        salt = self.entropy(SALT_BYTES)
        key = _expanded(salt, self.mesh_id, credential)
        slot_id, box = self._wrapped("credential", key, wrapping_key)
        return Slot(slot_id, "credential", self.now, salt, 0, 0, 0, box)

    def _wrapped(self, kind: SlotKind, key: bytes, wrapping_key: bytes) -> tuple[str, Box]:
        slot_id = self.entropy(SLOT_ID_BYTES).hex()
        return slot_id, self.box(key, _slot_purpose(kind, slot_id), wrapping_key)


def _unwrapped(sealed: SealedKeys, slot: Slot, key: bytes) -> bytes | None:
    return _open(key, sealed.mesh_id, _slot_purpose(slot.kind, slot.slot_id), slot.box)


def _opened(sealed: SealedKeys, slot: Slot, wrapping_key: bytes) -> OpenedKeys:
    issuing_key = _open(wrapping_key, sealed.mesh_id, "issuing-key", sealed.issuing_key)
    totp_secret = _open(wrapping_key, sealed.mesh_id, "totp", sealed.totp)
    if issuing_key is None or totp_secret is None:
        raise LedgerDamagedError(
            "the sealed keys are damaged: a slot opens, but the keys behind it do not",
            hint="restore keys.sealed from a backup",
        )
    return OpenedKeys(slot.slot_id, issuing_key, totp_secret, wrapping_key)


def _open(key: bytes, mesh_id: str, purpose: str, box: Box) -> bytes | None:
    try:
        return AESGCM(key).decrypt(box.nonce, box.ciphertext, _label(mesh_id, purpose))
    except InvalidTag:
        return None


def _label(mesh_id: str, purpose: str) -> bytes:
    return f"certmesh seal {SEAL_VERSION}\n{mesh_id}\n{purpose}".encode()


def _slot_purpose(kind: SlotKind, slot_id: str) -> str:
    return f"slot {kind} {slot_id}"


def _stretched(place: Slot | SealedRoot, passphrase: bytes) -> bytes:
    cost = KDFCost(place.memory_kib, place.passes, place.lanes)
    try:
        return _argon2id(place.salt, cost, passphrase)
    except (ValueError, MemoryError):
        raise LedgerDamagedError(
            "the sealed keys ask for an impossible key derivation",
            hint="restore keys.sealed from a backup",
        ) from None


def _argon2id(salt: bytes, cost: KDFCost, passphrase: bytes) -> bytes:
    return Argon2id(
        salt=salt,
        length=KEY_BYTES,
        iterations=cost.passes,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    ).derive(passphrase)


def _expanded(salt: bytes, mesh_id: str, credential: bytes) -> bytes:
    info = _label(mesh_id, "credential")
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(credential)


def _wrong_passphrase() -> BadPassphraseError:
    # One sentence for every cause: which slot, and how far it got, is nobody's business.
    return BadPassphraseError(
        "the passphrase does not open the keys of this CA",
        hint="check for a typing error; nothing was changed",
    )
