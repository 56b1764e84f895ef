"""CAs besides the one in force: made for a rollover, or replaced by one.

Each lies whole in a directory of its own, `<vault>.aside-<pin>`, so that no two can be mistaken for
each other. What makes a CA the one in force is the ledger; this follows it, and every step may be
cut short and done again: the present vault is copied aside first, then exchanged as a whole.
"""

import shutil
from pathlib import Path

from msgspec.structs import replace

from broker.errors import ConflictError, LedgerDamagedError, StorageError
from broker.ledger.rows import RolloverRow
from broker.pki.authority import fingerprint
from broker.pki.sealed import Box, SealedKeys
from broker.runtime.files import fsync_directory
from broker.shell.vault import Vault, aside_of, install_vault, load_vault

DOOMED = "doomed"


def keep_aside(directory: Path, vault: Vault) -> None:
    """Write a CA beside the one in `directory`; there already, it is written again.

    Raises:
        StorageError: The disk refused; trying again is safe.
        LedgerDamagedError: What is there cannot be read.
    """
    place = aside_of(directory, fingerprint(vault.root))
    install_vault(place, vault.root, vault.issuing, vault.sealed, replace=True)


def find_aside(directory: Path, pin: str) -> Vault | None:
    """Return the CA of that pin, if it lies aside.

    Raises:
        LedgerDamagedError: It is there and cannot be read.
    """
    found = load_vault(aside_of(directory, pin))
    return found if found is not None and fingerprint(found.root) == pin else None


def from_ledger(row: RolloverRow, present: SealedKeys) -> Vault:
    """Return the CA that a rollover made, as any key holder can have it: without its root key."""
    box = Box(row.nonce, row.ciphertext)
    return Vault(row.root, row.issuing, _with_keys(present, box, None))


def exchange(directory: Path, wanted: Vault) -> Vault:
    """Make `wanted` the CA in `directory` and return it as it lies there now.

    The ways to unlock are of this node and stay; the one that leaves is kept aside, root key
    included, until its certificates are of no use to anybody.

    Raises:
        StorageError: The disk refused; either the old or the new one is there, trying again is
            safe.
        LedgerDamagedError: What is there cannot be read.
    """
    present = load_vault(directory)
    if present is None:
        raise LedgerDamagedError(
            f"{directory} is gone", hint="restore it from a backup, or nominate this node again"
        )
    keep_aside(directory, present)
    keys = _with_keys(present.sealed, wanted.sealed.issuing_key, wanted.sealed)
    install_vault(directory, wanted.root, wanted.issuing, keys, replace=True)
    return Vault(wanted.root, wanted.issuing, keys)


def destroy_aside(directory: Path, pin: str) -> None:
    """Remove a CA that lies aside and its keys with it; nothing there is no trouble.

    Raises:
        StorageError: The disk refused; trying again is safe.
    """
    place = aside_of(directory, pin)
    doomed = place.with_name(f"{place.name}.{DOOMED}")
    try:
        if doomed.exists():
            shutil.rmtree(doomed)
        if not place.exists():
            return
        # Out of sight first and durably: half a directory must never look like a CA.
        place.rename(doomed)
        fsync_directory(place.parent)
        shutil.rmtree(doomed)
    except OSError as error:
        raise StorageError(f"cannot remove {place}: {error.strerror}") from None


def destroy_copies(directory: Path) -> None:
    """Remove every CA that lies aside and has no root key: this node is no key holder any more.

    Raises:
        StorageError: The disk refused; trying again is safe.
        LedgerDamagedError: What is there cannot be read; it was not touched.
    """
    for pin in pins_aside(directory):
        found = load_vault(aside_of(directory, pin))
        if found is not None and not found.sealed.roots:
            destroy_aside(directory, pin)


def check_removal(directory: Path, slot_id: str) -> None:
    """Refuse to remove the way to unlock that alone opens the root key of a CA that lies aside.

    Raises:
        ConflictError: It does.
        LedgerDamagedError: What is there cannot be read.
    """
    for pin in pins_aside(directory):
        found = load_vault(aside_of(directory, pin))
        roots = found.sealed.roots if found is not None else ()
        if roots and all(root.slot_id == slot_id for root in roots):
            raise ConflictError(
                f"the root key of CA {pin}, which lies aside, opens with that slot alone",
                hint="first finish or abort the rollover, or wait until the old CA has retired: "
                "certmesh ca rollover status",
            )


def forget_slot(directory: Path, slot_id: str) -> None:
    """Let a slot that is about to be removed open none of the CAs that lie aside either.

    Raises:
        StorageError: The disk refused; trying again is safe.
        LedgerDamagedError: What is there cannot be read.
    """
    for pin in pins_aside(directory):
        found = load_vault(aside_of(directory, pin))
        if found is None or found.sealed.slot(slot_id) is None:
            continue
        roots = tuple(root for root in found.sealed.roots if root.slot_id != slot_id)
        sealed = replace(
            found.sealed,
            slots=tuple(slot for slot in found.sealed.slots if slot.slot_id != slot_id),
            root=roots[0] if roots else None,
            more_roots=roots[1:],
        )
        keep_aside(directory, Vault(found.root, found.issuing, sealed))


def pins_aside(directory: Path) -> tuple[str, ...]:
    """Return the beginnings of the pins of all CAs that lie aside."""
    prefix = aside_of(directory, "").name
    found = (path.name.removeprefix(prefix) for path in directory.parent.glob(f"{prefix}*"))
    return tuple(sorted(name for name in found if "." not in name))


def _with_keys(present: SealedKeys, issuing_key: Box, root_of: SealedKeys | None) -> SealedKeys:
    """Return the present ways to unlock with the keys of another CA of the same mesh."""
    return replace(
        present,
        issuing_key=issuing_key,
        root=root_of.root if root_of is not None else None,
        more_roots=root_of.more_roots if root_of is not None else (),
    )
