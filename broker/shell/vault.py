"""The CA's directory: two certificates and the sealed keys, all of it or nothing.

A new vault is written into `<directory>.new`, fsynced, and renamed; a crash leaves either no
vault or a whole one, and what it left of the staging directory is removed by the next attempt.
An exchange moves the old one to `<directory>.old` first: a crash between the two renames leaves
it there, whole, and there it is found. A removal moves it to `<directory>.removed`, where it is
never looked for.

The root key exists once, on the node that made the mesh: an exchange carries it over, and a vault
with it is never deleted, only set aside as `<directory>.kept`. Another CA takes its place only
after a rollover has put a copy aside.

Private keys are on disk only inside `keys.sealed`, which carries a digest of its content: SQLite
and file systems do not notice a flipped bit, and a damaged slot must not look like a wrong
passphrase.
"""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.errors import (
    LedgerDamagedError,
    MalformedMessageError,
    MeshError,
    MeshExistsError,
    StorageError,
)
from broker.pki.authority import CreatedAuthority, der_of_pem, fingerprint, pem
from broker.pki.chain import check_authority, check_issued, read_certificate
from broker.pki.seal import CREDENTIAL_BYTES, SEAL_VERSION, SealedKeys
from broker.runtime.files import fsync_directory, private_directory, write_atomic, write_new
from broker.shell.privatefile import read_private
from broker.wire.base import Body
from broker.wire.codec import decode_body, encode_body

ROOT = "root.pem"
ISSUING = "issuing.pem"
KEYS = "keys.sealed"
STAGED, OLD, REMOVED, KEPT = "new", "old", "removed", "kept"
"""Endings of the directories beside the vault, see above."""
ASIDE, ASIDE_DIGITS = "aside-", 16
"""Name of a directory that holds another CA whole: so many digits of its pin follow."""
CERTIFICATE_MODE = 0o644
"""Public anyway; the directory around it is 0700."""
FILE_BYTES_MAX = 131_072


@dataclass(frozen=True, slots=True)
class Vault:
    """The CA as it lies on disk; `sealed` holds nothing usable without a slot's secret."""

    root: bytes
    issuing: bytes
    sealed: SealedKeys


class SealedFile(Body, frozen=True):
    """`keys.sealed`: msgpack of a `SealedKeys` and the SHA-256 of those bytes."""

    digest: bytes
    body: bytes


def create_vault(directory: Path, created: CreatedAuthority, sealed: SealedKeys) -> None:
    """Write the vault of a new CA; raises as `install_vault`."""
    install_vault(directory, created.root, created.issuing, sealed)


def install_vault(
    directory: Path,
    root_der: bytes,
    issuing_der: bytes,
    sealed: SealedKeys,
    *,
    replace: bool = False,
) -> None:
    """Write a vault; when this returns it survives a power cut.

    Args:
        directory: Where; its parent exists.
        root_der: The root certificate.
        issuing_der: The issuing certificate.
        sealed: The keys that belong to it.
        replace: Exchange a vault that is there; a root key in it stays.

    Raises:
        MeshExistsError: There is one already, or one with the root key of another CA; it was not
            touched.
        LedgerDamagedError: The one to be replaced cannot be read; it was not touched.
        StorageError: The disk refused; what was there is still there, trying again is safe.
    """
    with _writing(directory):
        _settle(directory)
        if replace:
            sealed = _with_kept_root(directory, root_der, sealed)
        else:
            _refuse_existing(directory)
        staged = _beside(directory, STAGED)
        _stage(staged, (root_der, issuing_der), sealed)
        if replace:
            _move_aside(directory)
        _take_place(staged, directory)
        _discard(_beside(directory, OLD))


def remove_vault(directory: Path) -> Path | None:
    """Remove the vault and what crashes left beside it; without one nothing happens.

    Returns:
        Where the vault was set aside because it has the root key, or may have it, or None.

    Raises:
        StorageError: The disk refused, or there is something set aside already; trying again is
            safe.
        LedgerDamagedError: The directory itself cannot be read.
    """
    with _writing(directory):
        _settle(directory)
        for ending in (STAGED, OLD, REMOVED):
            _discard(_beside(directory, ending))
        if not _holds_something(directory):
            return None
        kept = _beside(directory, KEPT) if _may_hold_root(directory) else None
        removed = _beside(directory, REMOVED)
        directory.rename(kept or removed)
        fsync_directory(directory.parent)
        _discard(removed)
        return kept


def load_vault(directory: Path) -> Vault | None:
    """Return the vault in `directory`, or None when this node has none.

    Raises:
        LedgerDamagedError: A file is missing, unreadable, damaged, does not fit the others, or
            is open to other users; the detail names it.
    """
    place = _place(directory)
    if not _holds_something(place):
        return None
    root = _certificate(place / ROOT)
    issuing = _certificate(place / ISSUING)
    _check(place / ROOT, root, root)
    _check(place / ISSUING, issuing, root)
    return Vault(
        root=root.public_bytes(Encoding.DER),
        issuing=issuing.public_bytes(Encoding.DER),
        sealed=_sealed(place / KEYS),
    )


def write_credential(path: Path, secret: bytes) -> None:
    """Write the secret of the credential slot, 0600 in a 0700 directory, durable.

    Raises:
        StorageError: The disk refused.
    """
    try:
        private_directory(path.parent)
        write_atomic(path, secret)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from None


def read_credential(path: Path) -> bytes | None:
    """Return the secret of the credential slot, or None when there is no such file.

    Raises:
        LedgerDamagedError: Unreadable, of another length or owner, or open to other users.
    """
    if not path.exists():
        return None
    secret = _private_content(path)
    if len(secret) != CREDENTIAL_BYTES:
        raise LedgerDamagedError(
            f"{path} is damaged: it has {len(secret)} bytes instead of {CREDENTIAL_BYTES}",
            hint="unlock with the passphrase: certmesh ca unlock",
        )
    return secret


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {directory}: {error.strerror}", hint="make room and try again"
        ) from None


def aside_of(directory: Path, pin: str) -> Path:
    """Return where a CA is kept that a rollover made or replaced, see `broker.shell.nextvault`."""
    return _beside(directory, f"{ASIDE}{pin[:ASIDE_DIGITS]}")


def _beside(directory: Path, ending: str) -> Path:
    return directory.with_name(f"{directory.name}.{ending}")


def _place(directory: Path) -> Path:
    """Return where the vault is: elsewhere only after a crash in the middle of an exchange."""
    aside = _beside(directory, OLD)
    return aside if not _holds_something(directory) and _holds_something(aside) else directory


def _settle(directory: Path) -> None:
    place = _place(directory)
    if place != directory:
        place.rename(directory)
        fsync_directory(directory.parent)


def _move_aside(directory: Path) -> None:
    if _holds_something(directory):
        aside = _beside(directory, OLD)
        _discard(aside)
        directory.rename(aside)


def _take_place(staged: Path, directory: Path) -> None:
    try:
        staged.rename(directory)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _exists(directory) from None
        raise
    fsync_directory(directory.parent)


def _discard(leftover: Path) -> None:
    # Durable before anything else is renamed: an old vault must not come back after a power cut.
    if leftover.exists():
        shutil.rmtree(leftover)
        fsync_directory(leftover.parent)


def _with_kept_root(directory: Path, root_der: bytes, sealed: SealedKeys) -> SealedKeys:
    old = load_vault(directory)
    if old is None or not old.sealed.roots:
        return sealed
    if old.root != root_der:
        aside = load_vault(aside_of(directory, fingerprint(old.root)))
        if aside is not None and aside.root == old.root and aside.sealed.roots:
            return sealed
        raise MeshExistsError(
            f"{directory} has the root key of another certificate authority; it was not touched",
            hint="move it to a safe place first",
        )
    if sealed.roots:
        return sealed  # its copies are the newer ones: a passphrase came or went
    return msgspec.structs.replace(sealed, root=old.sealed.root, more_roots=old.sealed.more_roots)


def _may_hold_root(directory: Path) -> bool:
    try:
        vault = load_vault(directory)
    except LedgerDamagedError:
        return True
    return vault is not None and bool(vault.sealed.roots)


def _refuse_existing(directory: Path) -> None:
    if _holds_something(directory):
        raise _exists(directory)


def _holds_something(directory: Path) -> bool:
    # An empty directory is what a careful installer makes beforehand; rename replaces it.
    try:
        return any(directory.iterdir())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise LedgerDamagedError(f"cannot read {directory}: {error.strerror}") from None


def _exists(directory: Path) -> MeshExistsError:
    return MeshExistsError(
        f"there is a certificate authority in {directory} already; it was not touched",
        hint="run `certmesh ca show` to see it",
    )


def _stage(staged: Path, chain: tuple[bytes, bytes], sealed: SealedKeys) -> None:
    root, issuing = chain
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(staged)
    private_directory(staged)
    write_new(staged / ROOT, pem(root).encode(), CERTIFICATE_MODE)
    write_new(staged / ISSUING, pem(issuing).encode(), CERTIFICATE_MODE)
    body = encode_body(sealed)
    content = encode_body(SealedFile(digest=hashlib.sha256(body).digest(), body=body))
    write_new(staged / KEYS, content)
    fsync_directory(staged)


def _certificate(path: Path) -> x509.Certificate:
    try:
        return read_certificate(der_of_pem(_content(path).decode("ascii")))
    except (MalformedMessageError, UnicodeDecodeError):
        raise _damaged(path, "it is not one PEM certificate") from None
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def _check(path: Path, certificate: x509.Certificate, root: x509.Certificate) -> None:
    try:
        check_authority(certificate)
        check_issued(certificate, root)
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def _sealed(path: Path) -> SealedKeys:
    content = _private_content(path)
    try:
        outer = decode_body(content, SealedFile)
        sealed = decode_body(outer.body, SealedKeys)
    except MeshError:
        raise _damaged(path, "its content cannot be read") from None
    if hashlib.sha256(outer.body).digest() != outer.digest:
        raise _damaged(path, "its content has changed since it was written")
    if sealed.version != SEAL_VERSION:
        raise LedgerDamagedError(
            f"{path} has version {sealed.version}, this release reads {SEAL_VERSION}",
            hint="use the release that wrote it",
        )
    return sealed


def _private_content(path: Path) -> bytes:
    try:
        return read_private(path, FILE_BYTES_MAX)
    except FileNotFoundError as error:
        raise _damaged(path, str(error.strerror)) from None


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from None


def _content(path: Path) -> bytes:
    if _stat(path).st_size > FILE_BYTES_MAX:
        raise _damaged(path, f"it has more than {FILE_BYTES_MAX} bytes")
    try:
        return path.read_bytes()
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from None


def _damaged(path: Path, reason: str) -> LedgerDamagedError:
    return LedgerDamagedError(
        f"{path} is damaged: {reason}", hint=f"restore {path.parent} from a backup"
    )
