"""`python -m broker restore SETTINGS FILE`: make a node out of a backup and the recovery kit.

Everything is opened and verified aside first: the digest before anything is parsed, the signature
of the issuing key, the journal from its first row, the keys against the root that the pin names.
Then the parts take their places, the membership last: without it there is no node, and the next
attempt sets what a crashed one left behind aside. A node that belongs to a mesh is never
overwritten.

The restored ledger gets a name of its own for the rows it will write (an incarnation), and a mark:
the broker that opens it serves and signs nothing before it has asked the members, see
`broker.shell.restored`.
"""

import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from broker.clock import wall_s
from broker.core.election import PRIMARY
from broker.core.observation import Standing
from broker.core.phases import Phase
from broker.errors import (
    BackupRejectedError,
    BadPassphraseError,
    LedgerDamagedError,
    MalformedMessageError,
    MeshError,
    MeshExistsError,
    StorageError,
)
from broker.ledger.file import renew_incarnation
from broker.ledger.rows import MeshRow
from broker.ledger.sqlite import Ledger
from broker.pki.authority import fingerprint
from broker.pki.container import (
    BackupHeader,
    SignedHeader,
    open_content_key,
    read_header,
    verify_header,
)
from broker.pki.issuer import Issuer
from broker.pki.kit import recovery_secret
from broker.pki.regain import Regained, regain
from broker.pki.seal import open_with_recovery
from broker.pki.sealed import CREDENTIAL_BYTES, KDFCost, OpenedKeys, Sealer
from broker.runtime.exits import Exit
from broker.runtime.files import fsync_directory, private_directory
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.shell.backup_file import (
    AUTHORITY,
    LEDGER,
    MEMBERSHIP,
    SETTINGS,
    check_content,
    open_into,
    read_end,
)
from broker.shell.create import KDF_LANES, set_aside
from broker.shell.lock import only_broker
from broker.shell.membership import read_membership, write_membership
from broker.shell.restored import LOCAL_RESTORED
from broker.shell.safekeeping import RestoreMark
from broker.shell.standing import LOCAL_ELECTION
from broker.shell.vault import Vault, install_vault, load_vault, write_credential
from broker.wire.backup import Restored, RestoreWish
from broker.wire.codec import decode_body, encode_body
from broker.wire.node import Membership
from broker.wire.plain import decode_json

PLACE_PREFIX = "restoring-"
SETTINGS_BYTES_MAX = 1_048_576


def restore(settings: Settings, paths: Paths, *, file: Path) -> int:
    """Read a `RestoreWish` from standard input, restore or verify, print the `Restored`."""
    try:
        wish = msgspec.json.decode(sys.stdin.buffer.read(), type=RestoreWish)
        private_directory(paths.data)
        with only_broker(paths.lock):
            done = restore_backup(settings, paths, file, wish)
    except MeshError as error:
        answer = {"code": error.code.value, "detail": error.detail, "hint": error.hint}
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        return Exit.CONFLICT if isinstance(error, MeshExistsError) else Exit.FAILED
    sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
    return Exit.OK


@dataclass(frozen=True, slots=True)
class Unpacked:
    """An opened backup in its private place; nothing in it was believed unchecked."""

    place: Path
    header: BackupHeader
    membership: Membership
    vault: Vault
    opened: OpenedKeys = field(repr=False)
    mesh: MeshRow
    rows: int
    members: int


def restore_backup(settings: Settings, paths: Paths, file: Path, wish: RestoreWish) -> Restored:
    """Verify a backup, and unless only that was wished make a node of it.

    Raises:
        MeshExistsError: This node belongs to a mesh; nothing was touched.
        BackupRejectedError: The file is damaged, was changed, is not signed, or contradicts itself.
        BadPassphraseError: The kit has a typing error, or is that of another mesh.
        StorageError: The disk refused; nothing was restored.
    """
    if not wish.verify_only and read_membership(paths) is not None:
        raise MeshExistsError(
            "this node belongs to a mesh already; a restore never overwrites one",
            hint="certmesh ca destroy ends it, or name another --home",
        )
    signed, header = _authentic(file, accept_unsigned=wish.unsigned or wish.verify_only)
    if wish.verify_only and not wish.kit:
        return _said(header, signed)
    secret = recovery_secret(wish.kit)
    key = open_content_key(header, secret)
    try:
        with _private_place(paths) as place:
            open_into(file, header, key, place)
            found = _look_into(place, header, secret)
            if not wish.verify_only:
                _check_new(wish)
                _put_into_place(settings, paths, found, wish, secret)
            return _told(found, signed, wish)
    except OSError as error:
        raise StorageError(
            f"cannot restore into {paths.data}: {error.strerror}", hint="make room there"
        ) from None


def _authentic(file: Path, *, accept_unsigned: bool) -> tuple[SignedHeader, BackupHeader]:
    """Return the header of a whole file, signed by the CA that it names."""
    signed, size = read_end(file)
    header = read_header(signed.header)
    if signed.signature or not accept_unsigned:
        verify_header(signed)
    check_content(file, header, size)
    return signed, header


def _look_into(place: Path, header: BackupHeader, secret: bytes) -> Unpacked:
    """Check the parts against each other, against the kit and against the pin."""
    try:
        membership = decode_json((place / MEMBERSHIP).read_bytes(), Membership)
        vault = load_vault(place / AUTHORITY)
    except (OSError, MalformedMessageError, LedgerDamagedError) as error:
        raise BackupRejectedError(f"a part of this backup cannot be used: {error}") from None
    if vault is None:
        raise BackupRejectedError("this backup holds no CA")
    pins = {header.pin, membership.pin, fingerprint(vault.root)}
    meshes = {header.mesh_id, membership.mesh_id, vault.sealed.mesh_id}
    hosts = {header.host, membership.host}
    if (len(pins), len(meshes), len(hosts)) != (1, 1, 1) or vault.issuing != header.issuing:
        raise BackupRejectedError("the parts of this backup belong to different meshes")
    # Opening the keys with the kit proves whose backup this is, also of an unsigned one.
    opened = open_with_recovery(vault.sealed, secret)
    Issuer.open(root=vault.root, issuing=vault.issuing, issuing_key=opened.issuing_key)
    try:
        with closing(Ledger.open(place / LEDGER, node=header.host)) as ledger:
            return _look_at_ledger(ledger, (place, header, membership, vault, opened))
    except LedgerDamagedError as error:
        raise BackupRejectedError(f"the journal in this backup: {error.detail}") from None


def _look_at_ledger(
    ledger: Ledger, parts: tuple[Path, BackupHeader, Membership, Vault, OpenedKeys]
) -> Unpacked:
    place, header, membership, vault, opened = parts
    mesh, head = ledger.mesh(), ledger.head
    if (head.term, head.sequence, head.hash) != (header.term, header.sequence, header.head_hash):
        raise BackupRejectedError("the journal in this backup is not the one its header names")
    if mesh is None or mesh.mesh_id != header.mesh_id or mesh.pin != header.pin:
        raise BackupRejectedError("the journal in this backup is of another mesh")
    if wrong := ledger.differing_projections():
        raise BackupRejectedError(f"these tables are not the fold of the journal: {wrong}")
    if ledger.member(membership.member_id) is None:
        raise BackupRejectedError("the journal in this backup does not know its own node")
    count = ledger.member_count()
    return Unpacked(place, header, membership, vault, opened, mesh, head.sequence, count)


def _check_new(wish: RestoreWish) -> None:
    if wish.new_passphrase != wish.new_passphrase.strip():
        raise BadPassphraseError("the new passphrase begins or ends with blanks")


def _put_into_place(
    settings: Settings, paths: Paths, found: Unpacked, wish: RestoreWish, secret: bytes
) -> None:
    """Move the parts where they belong; the membership makes a node of them."""
    set_aside(paths)
    credential = secrets.token_bytes(CREDENTIAL_BYTES) if found.mesh.policy.unattended else None
    ways = Regained(secret, credential, wish.new_passphrase.encode())
    kdf = KDFCost(settings.ca.kdf_memory // 1024, settings.ca.kdf_passes, KDF_LANES)
    sealer = Sealer(found.mesh.mesh_id, os.urandom, wall_s())
    sealed = regain(found.vault.sealed, found.opened, ways, kdf, sealer)
    _mark(found)
    if credential is not None:
        private_directory(paths.credential.parent)
        write_credential(paths.credential, credential)
    install_vault(paths.authority, found.vault.root, found.vault.issuing, sealed)
    for aside in sorted(found.place.glob(f"{AUTHORITY}.aside-*")):
        aside.rename(paths.data / aside.name)
    (found.place / LEDGER).rename(paths.ledger)
    fsync_directory(paths.data)
    write_membership(paths, found.membership)


def _mark(found: Unpacked) -> None:
    """Make the copied ledger one of its own, which knows that it was restored."""
    path, header = found.place / LEDGER, found.header
    renew_incarnation(path)
    with closing(Ledger.open(path, node=header.host)) as ledger:
        mark = RestoreMark(
            at=wall_s(),
            created_at=header.created_at,
            host=header.host,
            digest=header.digest,
            term=header.term,
            sequence=header.sequence,
        )
        ledger.begin()
        ledger.local_set(LOCAL_RESTORED, encode_body(mark))
        ledger.local_set(LOCAL_ELECTION, encode_body(_standing(ledger, header.host)))
        ledger.commit()


def _standing(ledger: Ledger, host: str) -> Standing:
    """Return where the restored node stands: nobody serves by being restored."""
    raw, term = ledger.local_get(LOCAL_ELECTION), ledger.term
    stored = decode_body(raw, Standing) if raw else Standing(Phase.SERVING, term, term, host, term)
    if Phase(stored.phase) in PRIMARY:
        return msgspec.structs.replace(stored, phase=Phase.PENDING, contested=True)
    return stored


def _said(header: BackupHeader, signed: SignedHeader) -> Restored:
    """Return what a file says of itself, without a kit."""
    return Restored(
        mesh_id=header.mesh_id,
        mesh_name=header.mesh_name,
        host=header.host,
        pin=header.pin,
        term=header.term,
        sequence=header.sequence,
        created_at=header.created_at,
        rows=0,
        members=0,
        verify_only=True,
        opened=False,
        signed=bool(signed.signature),
    )


def _told(found: Unpacked, signed: SignedHeader, wish: RestoreWish) -> Restored:
    said = _said(found.header, signed)
    file = found.place / SETTINGS
    text = file.read_bytes()[:SETTINGS_BYTES_MAX].decode(errors="replace") if file.exists() else ""
    return msgspec.structs.replace(
        said,
        rows=found.rows,
        members=found.members,
        verify_only=wish.verify_only,
        opened=True,
        unlocks=found.mesh.policy.unattended,
        settings=text,
    )


@contextmanager
def _private_place(paths: Paths) -> Iterator[Path]:
    """Yield a 0700 directory on the node's own disk: what is opened here is not encrypted."""
    for leftover in paths.data.glob(f"{PLACE_PREFIX}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=PLACE_PREFIX, dir=paths.data))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
