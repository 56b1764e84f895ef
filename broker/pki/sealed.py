"""The form in which a CA's secrets lie on disk, and the four primitives that make and open it.

Every box is AES-256-GCM whose associated text names the mesh and the purpose: a box moved to
another place, or to another mesh, does not open. A box that is of one slot names that slot too.

Source: Argon2id, RFC 9106; HKDF, RFC 5869; GCM with random 96-bit nonces, NIST SP 800-38D 8.2.2
(each key here seals a handful of boxes in its life).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Meta

from broker.errors import LedgerDamagedError
from broker.wire.base import Body
from broker.wire.slot import SlotKind

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
Entropy = Callable[[int], bytes]


class Box(Body, frozen=True):
    """One sealed secret."""

    nonce: Nonce
    ciphertext: SealedBytes


class Slot(Body, frozen=True):
    """One way to open the wrapping key; the costs are 0 where nothing has to be stretched.

    `peer` and `peer_id` are name and identity of the member whose half a peer slot needs; a name
    may change. `guard` holds the TOTP secret of a slot
    that opens by code; the file beside opens it, see `broker.pki.slots`.
    """

    slot_id: ShortText
    kind: SlotKind
    created_at: int
    salt: Salt
    memory_kib: MemoryKiB
    passes: Small
    lanes: Small
    box: Box
    peer: ShortText = ""
    peer_id: ShortText = ""
    guard: Box | None = None


class SealedRoot(Body, frozen=True):
    """The root key, for the passphrase or the recovery secret of one slot alone.

    `slot_id` is empty in what the first release wrote: then it belongs to the passphrase that made
    the mesh. The costs are 0 for a recovery secret.
    """

    salt: Salt
    memory_kib: MemoryKiB
    passes: Small
    lanes: Small
    box: Box
    slot_id: ShortText = ""

    @property
    def is_stretched(self) -> bool:
        """Whether a passphrase opens it; else the recovery secret does."""
        return self.memory_kib > 0


class SealedKeys(Body, frozen=True):
    """Everything secret of a CA that a node holds, as it lies on disk; a standby has no root.

    `root` is the first copy of the root key and `more_roots` are the others, for other secrets.
    """

    version: int
    mesh_id: ShortText
    root: SealedRoot | None
    issuing_key: Box
    totp: Box
    slots: tuple[Slot, ...]
    more_roots: tuple[SealedRoot, ...] = ()

    @property
    def roots(self) -> tuple[SealedRoot, ...]:
        """All copies of the root key."""
        return self.more_roots if self.root is None else (self.root, *self.more_roots)

    def slot(self, slot_id: str) -> Slot | None:
        """Return the slot of that id."""
        return next((slot for slot in self.slots if slot.slot_id == slot_id), None)

    def of_kind(self, *kinds: SlotKind) -> tuple[Slot, ...]:
        """Return the slots of these kinds, oldest first."""
        return tuple(slot for slot in self.slots if slot.kind in kinds)


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


@dataclass(frozen=True, slots=True)
class Sealer:
    """Makes boxes, slots and copies of the root key for one mesh.

    Attributes:
        mesh_id: Bound into every box.
        entropy: Returns that many fresh random bytes.
        now: Wall time for the slots.
    """

    mesh_id: str
    entropy: Entropy
    now: int

    def box(self, key: bytes, purpose: str, secret: bytes) -> Box:
        """Seal `secret` for `key` and this purpose."""
        nonce = self.entropy(NONCE_BYTES)
        return Box(nonce, AESGCM(key).encrypt(nonce, secret, label(self.mesh_id, purpose)))

    def passphrase_slot(self, wrapping_key: bytes, passphrase: bytes, kdf: KDFCost) -> Slot:
        """Return a slot for a passphrase. Slow: one Argon2id derivation."""
        salt = self.entropy(SALT_BYTES)
        slot_id, box = self._wrapped("passphrase", argon2id(salt, kdf, passphrase), wrapping_key)
        cost = (kdf.memory_kib, kdf.passes, kdf.lanes)
        return Slot(slot_id, "passphrase", self.now, salt, *cost, box)

    def secret_slot(
        self, kind: SlotKind, wrapping_key: bytes, secret: bytes, peer: tuple[str, str] = ("", "")
    ) -> Slot:
        """Return a slot for a secret of at least 256 random bits, which needs no stretching."""
        salt = self.entropy(SALT_BYTES)
        key = expanded(salt, self.mesh_id, kind, secret)
        slot_id, box = self._wrapped(kind, key, wrapping_key)
        return Slot(slot_id, kind, self.now, salt, 0, 0, 0, box, *peer)

    def root(
        self, root_key: bytes, passphrase: bytes, kdf: KDFCost, slot_id: str = ""
    ) -> SealedRoot:
        """Return the root key for a passphrase, with a salt of its own. Slow."""
        salt = self.entropy(SALT_BYTES)
        box = self.box(argon2id(salt, kdf, passphrase), ROOT_PURPOSE, root_key)
        return SealedRoot(salt, kdf.memory_kib, kdf.passes, kdf.lanes, box, slot_id)

    def recovery_root(self, root_key: bytes, recovery: bytes, slot_id: str) -> SealedRoot:
        """Return the root key for the recovery secret."""
        salt = self.entropy(SALT_BYTES)
        key = expanded(salt, self.mesh_id, RECOVERY_ROOT_PURPOSE, recovery)
        return SealedRoot(salt, 0, 0, 0, self.box(key, RECOVERY_ROOT_PURPOSE, root_key), slot_id)

    def _wrapped(self, kind: SlotKind, key: bytes, wrapping_key: bytes) -> tuple[str, Box]:
        slot_id = self.entropy(SLOT_ID_BYTES).hex()
        return slot_id, self.box(key, slot_purpose(kind, slot_id), wrapping_key)


ROOT_PURPOSE = "root-key"
RECOVERY_ROOT_PURPOSE = "root-key recovery"


def open_box(key: bytes, mesh_id: str, purpose: str, box: Box) -> bytes | None:
    """Return what is in the box, None when it does not open with this key for this purpose."""
    try:
        return AESGCM(key).decrypt(box.nonce, box.ciphertext, label(mesh_id, purpose))
    except InvalidTag:
        return None


def label(mesh_id: str, purpose: str) -> bytes:
    """Return the associated text of a box."""
    return f"certmesh seal {SEAL_VERSION}\n{mesh_id}\n{purpose}".encode()


def slot_purpose(kind: str, slot_id: str) -> str:
    """Return what the box of a slot is for."""
    return f"slot {kind} {slot_id}"


def stretched(place: Slot | SealedRoot, passphrase: bytes) -> bytes:
    """Return the key that a passphrase stands for in this place. Slow.

    Raises:
        LedgerDamagedError: The costs in the file are impossible.
    """
    cost = KDFCost(place.memory_kib, place.passes, place.lanes)
    try:
        return argon2id(place.salt, cost, passphrase)
    except (ValueError, MemoryError):
        raise LedgerDamagedError(
            "the sealed keys ask for an impossible key derivation",
            hint="restore keys.sealed from a backup",
        ) from None


def argon2id(salt: bytes, cost: KDFCost, passphrase: bytes) -> bytes:
    """Return the key that a passphrase stands for at this cost."""
    return Argon2id(
        salt=salt,
        length=KEY_BYTES,
        iterations=cost.passes,
        lanes=cost.lanes,
        memory_cost=cost.memory_kib,
    ).derive(passphrase)


def expanded(salt: bytes, mesh_id: str, purpose: str, secret: bytes) -> bytes:
    """Return the key that a random secret stands for in this purpose."""
    info = label(mesh_id, purpose)
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(secret)
