"""Adding and removing ways to unlock, on plain values.

The keys are never sealed anew: a slot wraps the wrapping key, which stays. Whoever has copied the
old file and knows the old secret still has the keys; only a new CA (a rollover) ends that.

Rules that no caller can leave out:

- The last passphrase slot stays, and who removes a passphrase slot shows a passphrase of one that
  stays: a typing error in a new passphrase is found before the old one is gone.
- The root key follows the passphrases: who adds one with a passphrase that opens the root key seals
  a copy for the new one, and no removal takes the last copy that the remaining person can open.

What each kind of slot asks for:

- `passphrase`: Argon2id; `recovery`, `credential`, `systemd`: 32 random bytes.
- `totp`: 32 random bytes in a file of the node, *and* the broker's consent, which it gives for a
  code of the authenticator whose secret lies in the slot's guard. All of it is on one disk: it
  keeps somebody at the keyboard from unlocking without the authenticator, and protects nothing
  once the disk is stolen. A code has 20 bits; nothing derived from it could.
- `peer`: two halves of 32 random bytes, one here and one at a named member. Each alone is noise.

Source: RFC 5869 for the two halves (both are input key material of one extraction).
"""

from dataclasses import dataclass, field

import msgspec
from cryptography.hazmat.primitives import constant_time

from broker.errors import (
    BadCredentialError,
    BadPassphraseError,
    ConflictError,
    LedgerDamagedError,
    NameNotAllowedError,
    NotFoundError,
)
from broker.pki.seal import open_root, open_with_passphrase
from broker.pki.sealed import (
    SLOTS_MAX,
    KDFCost,
    OpenedKeys,
    SealedKeys,
    SealedRoot,
    Sealer,
    Slot,
    expanded,
    open_box,
)
from broker.pki.totp import matching_step
from broker.wire.slot import HALF_BYTES, SlotKind

__all__ = [
    "PASSPHRASE_LENGTH_MAX",
    "PASSPHRASE_LENGTH_MIN",
    "SECRET_BYTES",
    "UNATTENDED",
    "PeerHalves",
    "Typed",
    "add_passphrase",
    "add_secret",
    "check_code",
    "remove_slot",
]

PASSPHRASE_LENGTH_MIN = 12
PASSPHRASE_LENGTH_MAX = 256
"""What `ca unlock` takes: a longer one would be accepted here and nowhere else."""
SECRET_BYTES = 32
CODE_WINDOW = 1
"""Steps accepted on either side of the current one (RFC 6238 section 5.2)."""

UNATTENDED: frozenset[str] = frozenset({"credential", "systemd", "peer"})
"""Kinds that open the CA without a person."""

GUARD = "slot guard"


@dataclass(frozen=True, slots=True)
class PeerHalves:
    """The two halves of a peer slot's secret."""

    own: bytes = field(repr=False)
    peers: bytes = field(repr=False)

    @property
    def secret(self) -> bytes:
        """What the slot asks for.

        Raises:
            ValueError: A half of another length.
        """
        if len(self.own) != HALF_BYTES or len(self.peers) != HALF_BYTES:
            raise ValueError("a half has 32 bytes")
        return self.own + self.peers


def add_passphrase(
    sealed: SealedKeys, passphrase: bytes, new: bytes, kdf: KDFCost, sealer: Sealer
) -> tuple[SealedKeys, Slot]:
    """Return the keys with a second passphrase, and its slot. Slow: several derivations.

    Args:
        sealed: What is on disk.
        passphrase: Proves the right, and opens the root key where there is one.
        new: The passphrase to add.
        kdf: Cost of trying the new one.
        sealer: Of this mesh.

    Raises:
        BadPassphraseError: `passphrase` opens nothing.
        NameNotAllowedError: The new one is too short, or too long to be typed anywhere else.
        ConflictError: The new one is the old one, or there are too many slots.
    """
    _require_room(sealed)
    length = len(new.decode(errors="replace"))
    if not PASSPHRASE_LENGTH_MIN <= length <= PASSPHRASE_LENGTH_MAX:
        raise NameNotAllowedError(
            f"the new passphrase has {length} characters; "
            f"{PASSPHRASE_LENGTH_MIN} to {PASSPHRASE_LENGTH_MAX} will do",
            hint="six random words are easy to remember and hard to guess",
        )
    if constant_time.bytes_eq(passphrase, new):
        raise ConflictError("the new passphrase is the old one", hint="nothing was changed")
    opened = open_with_passphrase(sealed, passphrase)
    root_key = _root_key(sealed, passphrase)
    slot = sealer.passphrase_slot(opened.wrapping_key, new, kdf)
    copies: tuple[SealedRoot, ...] = ()
    if root_key is not None:
        copies = (sealer.root(root_key, new, kdf, slot.slot_id),)
    return _with(sealed, slot, copies), slot


def add_secret(  # noqa: PLR0913 (every secret and every choice is named once, here)
    sealed: SealedKeys,
    opened: OpenedKeys,
    kind: SlotKind,
    secret: bytes,
    sealer: Sealer,
    *,
    peer: tuple[str, str] = ("", ""),
    guarded: bytes = b"",
) -> tuple[SealedKeys, Slot]:
    """Return the keys with a slot for a random secret, and that slot. Fast.

    Args:
        sealed: What is on disk.
        opened: Proof of the right, and the wrapping key.
        kind: `credential`, `systemd`, `totp` or `peer`.
        secret: At least 32 random bytes.
        sealer: Of this mesh.
        peer: Name and member id of whose half is in `secret`.
        guarded: The TOTP secret of a `totp` slot.

    Raises:
        ConflictError: Too many slots.
        ValueError: A short secret, or a guard where none belongs.
    """
    _require_room(sealed)
    if len(secret) < SECRET_BYTES or bool(guarded) != (kind == "totp"):
        raise ValueError(f"a slot of kind {kind} needs another secret")
    slot = sealer.secret_slot(kind, opened.wrapping_key, secret, peer)
    if guarded:
        key = expanded(slot.salt, sealed.mesh_id, GUARD, secret)
        slot = msgspec.structs.replace(slot, guard=sealer.box(key, _guard(slot), guarded))
    return _with(sealed, slot, ()), slot


def remove_slot(sealed: SealedKeys, passphrase: bytes, slot_id: str) -> SealedKeys:
    """Return the keys without one slot. Slow: one derivation per passphrase slot and root copy.

    Args:
        sealed: What is on disk.
        passphrase: Proves the right: one that opens a slot which stays.
        slot_id: The slot to remove.

    Raises:
        NotFoundError: No such slot.
        ConflictError: The last passphrase slot; or the root key would be out of reach.
        BadPassphraseError: It opens nothing that stays.
    """
    slot = sealed.slot(slot_id)
    if slot is None:
        raise NotFoundError(f"no slot {slot_id[:64]!r}", hint="certmesh ca slot list")
    others = [each for each in sealed.of_kind("passphrase") if each.slot_id != slot_id]
    if not others:
        raise ConflictError(
            "the last passphrase stays: without it a lost file would lock everybody out",
            hint="add another one first: certmesh ca slot add passphrase",
        )
    open_with_passphrase(sealed, passphrase, but=slot_id)
    roots = sealed.roots
    if roots and slot.kind == "passphrase":
        roots = _roots_without(sealed, slot_id, passphrase)
    elif slot.kind == "recovery":
        roots = tuple(root for root in roots if root.slot_id != slot_id)
    slots = tuple(each for each in sealed.slots if each.slot_id != slot_id)
    return _with_roots(msgspec.structs.replace(sealed, slots=slots), roots)


@dataclass(frozen=True, slots=True)
class Typed:
    """A code as typed, when, and the newest step that was ever accepted."""

    code: str = field(repr=False)
    now: int
    last_step: int


def check_code(sealed: SealedKeys, slot: Slot, secret: bytes, typed: Typed) -> int:
    """Return the step of a code for a `totp` slot, which is spent with this.

    Args:
        sealed: What is on disk.
        slot: Of kind `totp`.
        secret: The content of the slot's file.
        typed: The code; its step and all before the last accepted one are refused.

    Raises:
        BadCredentialError: Not a code of now, or used before; one sentence for both.
        LedgerDamagedError: The file does not open the guard.
    """
    guard = slot.guard
    key = expanded(slot.salt, sealed.mesh_id, GUARD, secret)
    guarded = None if guard is None else open_box(key, sealed.mesh_id, _guard(slot), guard)
    if guarded is None:
        raise LedgerDamagedError(
            "the file of the code slot does not belong to it",
            hint="unlock with the passphrase, then remove the slot and add it anew",
        )
    step = matching_step(guarded, typed.code, typed.now, CODE_WINDOW)
    if step is None or step <= typed.last_step:
        raise BadCredentialError(
            "the code is wrong or was used before", hint="wait for the next code"
        )
    return step


def _require_room(sealed: SealedKeys) -> None:
    if len(sealed.slots) >= SLOTS_MAX:
        raise ConflictError(
            f"there are {len(sealed.slots)} slots already, which is the most there can be",
            hint="remove one first: certmesh ca slot list",
        )


def _with(sealed: SealedKeys, slot: Slot, copies: tuple[SealedRoot, ...]) -> SealedKeys:
    return msgspec.structs.replace(
        sealed, slots=(*sealed.slots, slot), more_roots=(*sealed.more_roots, *copies)
    )


def _roots_without(sealed: SealedKeys, slot_id: str, passphrase: bytes) -> tuple[SealedRoot, ...]:
    """Return the copies of the root key that stay when a passphrase goes.

    A copy of the first release names no slot: it is taken for one of the slot that goes, unless
    the passphrase at hand opens it. A copy of a slot that is not here is left alone.
    """
    stay = tuple(root for root in sealed.roots if root.slot_id not in ("", slot_id))
    unnamed = tuple(root for root in sealed.roots if not root.slot_id)
    stay = (*(root for root in unnamed if _opens_root(sealed, root, passphrase)), *stay)
    if len(stay) == len(sealed.roots):
        return stay
    if any(root.is_stretched and _opens_root(sealed, root, passphrase) for root in stay):
        return stay
    raise ConflictError(
        "the root key opens with the passphrase of that slot alone",
        hint="add a new passphrase, giving that one as proof, and then remove the slot",
    )


def _opens_root(sealed: SealedKeys, root: SealedRoot, passphrase: bytes) -> bool:
    return _root_key(_with_roots(sealed, (root,)), passphrase) is not None


def _root_key(sealed: SealedKeys, passphrase: bytes) -> bytes | None:
    """Return the root key if it is here and this passphrase has a copy of it."""
    try:
        return open_root(sealed, passphrase)
    except (BadPassphraseError, NotFoundError):
        return None


def _with_roots(sealed: SealedKeys, roots: tuple[SealedRoot, ...]) -> SealedKeys:
    first = roots[0] if roots else None
    return msgspec.structs.replace(sealed, root=first, more_roots=roots[1:])


def _guard(slot: Slot) -> str:
    return f"{GUARD} {slot.slot_id}"
