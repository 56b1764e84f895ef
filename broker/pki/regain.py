"""The CA's keys on a new machine, opened by the recovery kit.

Slots that belong to files and peers of the lost machine go: whoever has that machine must not find
this one open too. What the mesh shares, passphrases and the kit, stays.
"""

from dataclasses import dataclass, field

from msgspec.structs import replace

from broker.errors import ConflictError, NameNotAllowedError
from broker.pki.seal import TRAVELLING, open_root_with_recovery
from broker.pki.sealed import SLOTS_MAX, KDFCost, OpenedKeys, SealedKeys, SealedRoot, Sealer
from broker.pki.slots import PASSPHRASE_LENGTH_MIN


@dataclass(frozen=True, slots=True)
class Regained:
    """What opens the keys from now on besides what travelled.

    Attributes:
        recovery: The secret of the kit.
        credential: 32 random bytes for a file of the new machine, or None.
        passphrase: A new passphrase, or empty.
    """

    recovery: bytes = field(repr=False)
    credential: bytes | None = field(default=None, repr=False)
    passphrase: bytes = field(default=b"", repr=False)


def regain(
    sealed: SealedKeys, opened: OpenedKeys, ways: Regained, kdf: KDFCost, sealer: Sealer
) -> SealedKeys:
    """Return the keys with the slots of the new machine. Slow with a new passphrase.

    Raises:
        NameNotAllowedError: The new passphrase is too short.
        ConflictError: There are too many slots.
        BadPassphraseError: The kit does not open the root key.
    """
    slots = [slot for slot in sealed.slots if slot.kind in TRAVELLING]
    copies: tuple[SealedRoot, ...] = ()
    if ways.credential is not None:
        slots.append(sealer.secret_slot("credential", opened.wrapping_key, ways.credential))
    if ways.passphrase:
        if len(ways.passphrase.decode(errors="replace")) < PASSPHRASE_LENGTH_MIN:
            raise NameNotAllowedError(
                f"the new passphrase has fewer than {PASSPHRASE_LENGTH_MIN} characters",
                hint="six random words are easy to remember and hard to guess",
            )
        slot = sealer.passphrase_slot(opened.wrapping_key, ways.passphrase, kdf)
        slots.append(slot)
        if sealed.roots:
            root_key = open_root_with_recovery(sealed, ways.recovery)
            copies = (sealer.root(root_key, ways.passphrase, kdf, slot.slot_id),)
    if len(slots) > SLOTS_MAX:
        raise ConflictError(f"there would be {len(slots)} ways to unlock, {SLOTS_MAX} is the most")
    return replace(sealed, slots=tuple(slots), more_roots=(*sealed.more_roots, *copies))
