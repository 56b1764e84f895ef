"""CA keys at rest.

A random wrapping key seals the issuing key and the TOTP secret; each slot seals the wrapping key in
its own way, so a new way to unlock never touches the keys. The root key is sealed by the
passphrases and the recovery secret alone, each time with a salt of its own: no other slot and no
running broker can open it.

A standby has the same wrapping key, and the passphrase and recovery slots of the mesh, so one
passphrase unlocks every key holder; its other slots are its own, and it has no root key at all.

What lies on disk is in `broker.pki.sealed`; adding and removing slots in `broker.pki.slots`.
Randomness is passed in.
"""

from typing import Annotated

from msgspec import Meta
from typing_extensions import override

from broker.errors import BadPassphraseError, LedgerDamagedError, NotFoundError
from broker.pki.authority import CreatedAuthority
from broker.pki.sealed import (
    CREDENTIAL_BYTES,
    KEY_BYTES,
    MEMORY_KIB_MAX,
    RECOVERY_ROOT_PURPOSE,
    ROOT_PURPOSE,
    SEAL_VERSION,
    SLOTS_MAX,
    Box,
    Entropy,
    KDFCost,
    OpenedKeys,
    SealedBytes,
    SealedKeys,
    SealedRoot,
    Sealer,
    ShortText,
    Slot,
    expanded,
    open_box,
    slot_purpose,
    stretched,
)
from broker.wire.base import Body
from broker.wire.ids import DER
from broker.wire.slot import SlotKind

__all__ = [
    "CREDENTIAL_BYTES",
    "KEY_BYTES",
    "MEMORY_KIB_MAX",
    "SEAL_VERSION",
    "SLOTS_MAX",
    "TRAVELLING",
    "Box",
    "KDFCost",
    "KeyMaterial",
    "OpenedKeys",
    "SealedKeys",
    "SealedRoot",
    "Slot",
    "open_root",
    "open_root_with_recovery",
    "open_with_credential",
    "open_with_passphrase",
    "open_with_recovery",
    "open_with_secret",
    "seal_for_standby",
    "seal_keys",
]

TRAVELLING: tuple[SlotKind, ...] = ("passphrase", "recovery")
"""Slots that a standby gets with the key: they are of the mesh, the others of one machine."""


class KeyMaterial(Body, frozen=True):
    """What a standby needs to become primary, in the clear; it is on the wire only sealed.

    `unattended` is what the policy says of slots that open the keys without a person: the taker
    decides before it has the roster, so it learns it here.
    The representation, also the one that consoles ask for, shows only the mesh.
    """

    mesh_id: ShortText
    root: DER
    issuing: DER
    issuing_key: SealedBytes
    totp_secret: SealedBytes
    wrapping_key: Annotated[bytes, Meta(min_length=KEY_BYTES, max_length=KEY_BYTES)]
    slots: Annotated[tuple[Slot, ...], Meta(max_length=SLOTS_MAX)]
    unattended: bool = True

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
    recovery: bytes | None = None,
) -> SealedKeys:
    """Return the sealed form of a new CA's keys. Slow: two Argon2id derivations.

    Args:
        created: The new CA.
        mesh_id: Bound into every box.
        totp_secret: The enrollment secret.
        passphrase: Opens the keys and the root key.
        credential: 32 random bytes that open the keys without a person, or None.
        kdf: Cost of trying one passphrase.
        entropy: Returns that many fresh random bytes.
        now: Wall time for the slots.
        recovery: 32 random bytes of the recovery kit, which open the keys and the root key, or
            None.

    Raises:
        ValueError: Empty passphrase, or a credential or recovery secret of another length.
    """
    lengths = {len(secret) for secret in (credential, recovery) if secret is not None}
    if not passphrase or lengths - {CREDENTIAL_BYTES}:
        raise ValueError("an empty passphrase or a credential of the wrong length")
    sealer = Sealer(mesh_id, entropy, now)
    wrapping_key = entropy(KEY_BYTES)
    slots = [sealer.passphrase_slot(wrapping_key, passphrase, kdf)]
    more_roots: tuple[SealedRoot, ...] = ()
    if credential is not None:
        slots.append(sealer.secret_slot("credential", wrapping_key, credential))
    if recovery is not None:
        slots.append(sealer.secret_slot("recovery", wrapping_key, recovery))
        more_roots = (sealer.recovery_root(created.root_key, recovery, slots[-1].slot_id),)
    return SealedKeys(
        version=SEAL_VERSION,
        mesh_id=mesh_id,
        root=sealer.root(created.root_key, passphrase, kdf, slots[0].slot_id),
        issuing_key=sealer.box(wrapping_key, "issuing-key", created.issuing_key),
        totp=sealer.box(wrapping_key, "totp", totp_secret),
        slots=tuple(slots),
        more_roots=more_roots,
    )


def seal_for_standby(
    material: KeyMaterial, *, credential: bytes | None, entropy: Entropy, now: int
) -> SealedKeys:
    """Return received keys in the form this node keeps them. Fast: no passphrase is needed.

    The passphrase and recovery slots stay as they came: with the same wrapping key behind them
    the secrets of the mesh open them here too. The credential slot is this node's own.

    Args:
        material: Checked before.
        credential: 32 random bytes of this node that open the keys without a person, or None.
        entropy: Returns that many fresh random bytes.
        now: Wall time for the slot.

    Raises:
        ValueError: A credential of another length, or nothing would ever open the result.
    """
    slots = [slot for slot in material.slots if slot.kind in TRAVELLING]
    if all(slot.kind != "passphrase" for slot in slots) or (
        credential is not None and len(credential) != CREDENTIAL_BYTES
    ):
        raise ValueError("no passphrase slot or a credential of the wrong length")
    sealer, wrapping_key = Sealer(material.mesh_id, entropy, now), material.wrapping_key
    if credential is not None:
        slots.append(sealer.secret_slot("credential", wrapping_key, credential))
    return SealedKeys(
        version=SEAL_VERSION,
        mesh_id=material.mesh_id,
        root=None,
        issuing_key=sealer.box(wrapping_key, "issuing-key", material.issuing_key),
        totp=sealer.box(wrapping_key, "totp", material.totp_secret),
        slots=tuple(slots),
    )


def open_with_passphrase(sealed: SealedKeys, passphrase: bytes, *, but: str = "") -> OpenedKeys:
    """Return the everyday secrets. Slow: one Argon2id derivation per passphrase slot.

    Args:
        sealed: What is on disk.
        passphrase: As typed, UTF-8.
        but: A slot that does not count, such as one that is about to be removed.

    Raises:
        BadPassphraseError: No slot opens with it.
        LedgerDamagedError: A slot opened, what it guards did not.
    """
    for slot in sealed.of_kind("passphrase"):
        if slot.slot_id != but:
            wrapping_key = _unwrapped(sealed, slot, stretched(slot, passphrase))
            if wrapping_key is not None:
                return _opened(sealed, slot, wrapping_key)
    raise _wrong_passphrase()


def open_with_secret(
    sealed: SealedKeys, kind: SlotKind, secret: bytes, slot_id: str = ""
) -> OpenedKeys:
    """Return the everyday secrets. Fast: the secret has 256 bits and needs no stretching.

    Args:
        sealed: What is on disk.
        kind: Every kind but `passphrase`.
        secret: What the kind asks for; of a peer slot both halves, this node's first.
        slot_id: The one slot to try, else all of the kind.

    Raises:
        BadPassphraseError: No such slot opens with it.
        LedgerDamagedError: A slot opened, what it guards did not.
    """
    for slot in sealed.of_kind(kind):
        if slot_id in ("", slot.slot_id):
            key = expanded(slot.salt, sealed.mesh_id, kind, secret)
            wrapping_key = _unwrapped(sealed, slot, key)
            if wrapping_key is not None:
                return _opened(sealed, slot, wrapping_key)
    raise BadPassphraseError(
        f"the {_SECRETS.get(kind, kind)} does not open the keys of this CA",
        hint="unlock with the passphrase: certmesh ca unlock",
    )


_SECRETS: dict[str, str] = {
    "credential": "credential file",
    "systemd": "systemd credential",
    "totp": "file of the code slot",
    "peer": "half that the peer gave",
    "recovery": "recovery secret",
}


def open_with_credential(sealed: SealedKeys, credential: bytes) -> OpenedKeys:
    """Return the everyday secrets by the credential file; raises as `open_with_secret`."""
    return open_with_secret(sealed, "credential", credential)


def open_with_recovery(sealed: SealedKeys, secret: bytes) -> OpenedKeys:
    """Return the everyday secrets by the secret of the recovery kit.

    Raises:
        BadPassphraseError: Not the secret of this mesh's kit.
        LedgerDamagedError: A slot opened, what it guards did not.
    """
    return open_with_secret(sealed, "recovery", secret)


def open_root(sealed: SealedKeys, passphrase: bytes) -> bytes:
    """Return the root key as PKCS #8 DER. Slow: one derivation per passphrase that has a copy.

    Raises:
        NotFoundError: This node never had it: only the node that made the mesh does.
        BadPassphraseError: Not a passphrase it was sealed with.
    """
    _require_root(sealed)
    for root in sealed.roots:
        if root.is_stretched:
            key = stretched(root, passphrase)
            opened = open_box(key, sealed.mesh_id, ROOT_PURPOSE, root.box)
            if opened is not None:
                return opened
    raise _wrong_passphrase()


def open_root_with_recovery(sealed: SealedKeys, secret: bytes) -> bytes:
    """Return the root key as PKCS #8 DER by the secret of the recovery kit.

    Raises:
        NotFoundError: This node never had it: only the node that made the mesh does.
        BadPassphraseError: Not the secret of this mesh's kit, or the mesh has none.
    """
    _require_root(sealed)
    for root in sealed.roots:
        if not root.is_stretched:
            key = expanded(root.salt, sealed.mesh_id, RECOVERY_ROOT_PURPOSE, secret)
            opened = open_box(key, sealed.mesh_id, RECOVERY_ROOT_PURPOSE, root.box)
            if opened is not None:
                return opened
    raise BadPassphraseError(
        "the recovery secret does not open the root key of this CA",
        hint="use the passphrase, or the kit that was printed when the mesh was made",
    )


def _require_root(sealed: SealedKeys) -> None:
    if not sealed.roots:
        raise NotFoundError(
            "this node does not hold the root key; standbys never receive it",
            hint="use the node that made the mesh, or a backup of its CA directory",
        )


def _unwrapped(sealed: SealedKeys, slot: Slot, key: bytes) -> bytes | None:
    return open_box(key, sealed.mesh_id, slot_purpose(slot.kind, slot.slot_id), slot.box)


def _opened(sealed: SealedKeys, slot: Slot, wrapping_key: bytes) -> OpenedKeys:
    issuing_key = open_box(wrapping_key, sealed.mesh_id, "issuing-key", sealed.issuing_key)
    totp_secret = open_box(wrapping_key, sealed.mesh_id, "totp", sealed.totp)
    if issuing_key is None or totp_secret is None:
        raise LedgerDamagedError(
            "the sealed keys are damaged: a slot opens, but the keys behind it do not",
            hint="restore keys.sealed from a backup",
        )
    return OpenedKeys(slot.slot_id, issuing_key, totp_secret, wrapping_key)


def _wrong_passphrase() -> BadPassphraseError:
    # One sentence for every cause: which slot, and how far it got, is nobody's business.
    return BadPassphraseError(
        "the passphrase does not open the keys of this CA",
        hint="check for a typing error; nothing was changed",
    )
