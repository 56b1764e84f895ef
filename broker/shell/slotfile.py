"""Secrets of slots that lie on this machine: one small file each, 0600, beside the vault.

`credentials/ca-unlock` belongs to the credential slot. `totp-ID` and `peer-ID` belong to the slot
of that id. `systemd-ID` is only a way station: the operator encrypts it with `systemd-creds` and
removes it; at boot that secret comes from `$CREDENTIALS_DIRECTORY` alone.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path

from broker.errors import LedgerDamagedError
from broker.pki.sealed import CREDENTIAL_BYTES, SealedKeys, Slot
from broker.runtime.files import fsync_directory
from broker.runtime.paths import Paths
from broker.shell.privatefile import WORLD, read_private
from broker.shell.vault import write_credential

SYSTEMD_NAME = "certmesh-ca"
"""What the credential is called in the unit: `LoadCredentialEncrypted=certmesh-ca`."""
SYSTEMD_DIRECTORY = "CREDENTIALS_DIRECTORY"

__all__ = [
    "SYSTEMD_DIRECTORY",
    "SYSTEMD_NAME",
    "read_slot_secret",
    "remove_slot_file",
    "slot_file",
    "systemd_secret",
    "write_slot_secret",
]


def slot_file(paths: Paths, slot: Slot) -> Path | None:
    """Return where the secret of a slot lies, None for kinds that have none on this machine."""
    match slot.kind:
        case "credential":
            return paths.credential
        case "systemd" | "totp" | "peer":
            return paths.credential.with_name(f"{slot.kind}-{slot.slot_id}")
        case _:
            return None


def write_slot_secret(paths: Paths, slot: Slot, secret: bytes) -> Path | None:
    """Write the secret of a slot, 0600 in a 0700 directory, durable; return where.

    Raises:
        StorageError: The disk refused.
    """
    path = slot_file(paths, slot)
    if path is not None:
        write_credential(path, secret)
    return path


def read_slot_secret(paths: Paths, slot: Slot) -> bytes:
    """Return the secret of a `totp` slot, or this node's half of a `peer` slot.

    Raises:
        LedgerDamagedError: Missing, unreadable, of another length, open to others, or not ours.
    """
    path = slot_file(paths, slot)
    assert path is not None, f"a slot of kind {slot.kind} has no file"
    try:
        return _exactly(path, read_private(path, CREDENTIAL_BYTES + 1))
    except FileNotFoundError:
        raise LedgerDamagedError(
            f"{path} is missing, the slot cannot open",
            hint="unlock with the passphrase, then remove the slot and add it anew",
        ) from None


def systemd_secret(environment: Mapping[str, str]) -> bytes | None:
    """Return the secret that systemd decrypted for this service, None when it gave none.

    Raises:
        LedgerDamagedError: It is there, and not what it should be.
    """
    directory = environment.get(SYSTEMD_DIRECTORY, "")
    if not directory:
        return None
    path = Path(directory) / SYSTEMD_NAME
    try:
        return _exactly(path, read_private(path, CREDENTIAL_BYTES + 1, WORLD))
    except FileNotFoundError:
        return None


def remove_slot_file(paths: Paths, slot: Slot, sealed: SealedKeys) -> None:
    """Remove the file of a slot that is no longer in `sealed`, the vault on disk.

    What cannot be removed stays: it opens nothing any more.
    """
    path = slot_file(paths, slot)
    if path is None or any(slot_file(paths, other) == path for other in sealed.slots):
        return
    with contextlib.suppress(OSError):
        path.unlink()
        fsync_directory(path.parent)


def _exactly(path: Path, secret: bytes) -> bytes:
    if len(secret) != CREDENTIAL_BYTES:
        raise LedgerDamagedError(
            f"{path} is damaged: it does not have {CREDENTIAL_BYTES} bytes",
            hint="unlock with the passphrase: certmesh ca unlock",
        )
    return secret
