"""`python -m broker backup SETTINGS`: write one backup beside a broker that goes on serving.

A program of its own, at low priority: hashing and checking a long journal in a thread would hold
the interpreter of the broker up. It sees no opened key. What it writes it reads back, opens and
verifies while it still knows the content key; then it forgets that key, and only the recovery kit
opens the file. The broker signs the header and gives the file its name.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec

from broker.clock import wall_s
from broker.errors import (
    BackupRejectedError,
    ConflictError,
    LedgerDamagedError,
    MeshError,
    NoMeshError,
    StorageError,
)
from broker.ledger.rows import Head, MeshRow
from broker.ledger.sqlite import Ledger
from broker.pki.container import (
    KEY_BYTES,
    VERSION,
    BackupHeader,
    SignedHeader,
    Subject,
    seal_content_key,
)
from broker.runtime.exits import Exit
from broker.runtime.files import private_directory
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.shell.backup_file import (
    AUTHORITY,
    LEDGER,
    MEMBERSHIP,
    SETTINGS,
    check_content,
    digest_of,
    open_into,
    read_end,
    write_body,
    write_trailer,
)
from broker.shell.copies import copy_authority, copy_ledger
from broker.shell.membership import read_membership
from broker.shell.vault import Vault, load_vault
from broker.wire.base import Body
from broker.wire.codec import encode_body
from broker.wire.node import Membership

NICE = 10
PLACE_PREFIX = "backup.new-"
STAGED_PREFIX, STAGED_SUFFIX = ".", ".new"


class BackupWish(Body, frozen=True):
    """Input of this program: the name that the finished file is to have."""

    target: str


class BackupMade(Body, frozen=True):
    """Output: where the finished file lies, still unsigned and under another name."""

    staged: str
    header: bytes


def backup(_settings: Settings, paths: Paths) -> int:
    """Read a `BackupWish` from standard input, write the file, print a `BackupMade`."""
    os.nice(NICE)
    try:
        wish = msgspec.json.decode(sys.stdin.buffer.read(), type=BackupWish)
        made = make_backup(paths, Path(wish.target))
    except MeshError as error:
        answer = {"code": error.code.value, "detail": error.detail, "hint": error.hint}
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        return Exit.FAILED
    sys.stdout.write(msgspec.json.encode(made).decode() + "\n")
    return Exit.OK


def make_backup(paths: Paths, target: Path) -> BackupMade:
    """Write a backup of this node beside `target`, and prove that it opens.

    Raises:
        NoMeshError: This node holds no CA, or no roster.
        ConflictError: There is such a file already, or the mesh has no recovery key.
        LedgerDamagedError: What would be backed up is damaged; earlier backups are untouched.
        StorageError: The disk refused.
    """
    if target.exists():
        raise ConflictError(f"{target} exists already", hint="name another file")
    staged = staged_path(target)
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(paths, target.parent)
        with _private_place(paths) as place:
            return _make(paths, place, staged)
    except OSError as error:
        staged.unlink(missing_ok=True)
        raise StorageError(
            f"cannot write {target}: {error.strerror}", hint=f"make room in {target.parent}"
        ) from None
    except BaseException:
        staged.unlink(missing_ok=True)
        raise


def staged_path(target: Path) -> Path:
    """Return the name of a file that is still under way."""
    return target.with_name(f"{STAGED_PREFIX}{target.name}{STAGED_SUFFIX}")


def _make(paths: Paths, place: Path, staged: Path) -> BackupMade:
    files, membership, vault = _gather(paths, place)
    mesh, head = _look_into(place / LEDGER, membership.host)
    if not mesh.recovery_key:
        raise ConflictError(
            "this mesh was made without a recovery kit, so nothing could open a backup",
            hint="copy the home directory of the stopped node instead",
        )
    key = os.urandom(KEY_BYTES)
    subject = Subject(mesh.mesh_id, membership.host, head.term, head.sequence, head.hash)
    size, digest = write_body(staged, key, files)
    header = BackupHeader(
        version=VERSION,
        mesh_id=mesh.mesh_id,
        mesh_name=mesh.name,
        pin=mesh.pin,
        host=membership.host,
        created_at=wall_s(),
        term=head.term,
        sequence=head.sequence,
        head_hash=head.hash,
        recipient=mesh.recovery_key,
        sealed_key=seal_content_key(key, mesh.recovery_key, subject),
        body_bytes=size,
        digest=digest,
        root=vault.root,
        issuing=vault.issuing,
    )
    raw = encode_body(header)
    write_trailer(staged, header, SignedHeader(raw))
    _read_back(staged, header, key, place)
    return BackupMade(str(staged), raw)


def _gather(paths: Paths, place: Path) -> tuple[dict[str, Path], Membership, Vault]:
    """Copy what a backup holds; the ledger at one moment, the vault whole."""
    membership = read_membership(paths)
    if membership is None:
        raise NoMeshError("this node belongs to no mesh", hint="certmesh status")
    copy_ledger(paths.ledger, place / LEDGER)
    copy_authority(paths.authority, place / AUTHORITY)
    for aside in sorted(paths.data.glob(f"{paths.authority.name}.aside-*")):
        copy_authority(aside, place / f"{AUTHORITY}.{aside.name.rpartition('.')[2]}")
    vault = load_vault(place / AUTHORITY)
    if vault is None:
        raise NoMeshError(
            f"{membership.host} holds no CA key, so there is nothing to back up",
            hint="run this on the primary or on a standby",
        )
    for name, source in ((MEMBERSHIP, paths.membership), (SETTINGS, paths.settings)):
        if source.exists():
            shutil.copy(source, place / name)
    files = {name: place / name for name in (LEDGER, MEMBERSHIP, SETTINGS)}
    directories = [entry for entry in place.iterdir() if entry.is_dir()]
    for directory in sorted(directories):
        files |= {f"{directory.name}/{path.name}": path for path in sorted(directory.iterdir())}
    return {name: path for name, path in files.items() if path.exists()}, membership, vault


def _look_into(copy: Path, host: str) -> tuple[MeshRow, Head]:
    """Verify the copied journal from its first row; return its mesh and its end."""
    with closing(Ledger.open(copy, node=host)) as ledger:
        mesh = ledger.mesh()
        if mesh is None:
            raise NoMeshError("this node keeps no roster", hint="back up the primary or a standby")
        if wrong := ledger.differing_projections():
            raise LedgerDamagedError(
                f"the journal is whole, but these tables are not its fold: {', '.join(wrong)}",
                hint="stop this node; restore its ledger from a backup or a standby",
            )
        return mesh, ledger.head


def _read_back(staged: Path, header: BackupHeader, key: bytes, place: Path) -> None:
    """Open the finished file as a restore would, and compare it with what went in."""
    signed, size = read_end(staged)
    if signed.header != encode_body(header):
        raise BackupRejectedError("the disk gave back another header than was written")
    check_content(staged, header, size)
    there = private_directory(place / "read-back")
    names = open_into(staged, header, key, there)
    if any(digest_of(there / name) != digest_of(place / name) for name in names):
        raise BackupRejectedError("the disk gave back another content than was written")
    if load_vault(there / AUTHORITY) is None:
        raise BackupRejectedError("the backup holds no CA")
    _, head = _look_into(there / LEDGER, header.host)
    if (head.sequence, head.hash) != (header.sequence, header.head_hash):
        raise BackupRejectedError("the journal in the backup ends elsewhere")


@contextlib.contextmanager
def _private_place(paths: Paths) -> Iterator[Path]:
    """Yield a 0700 directory on the node's own disk: the copy of the ledger is not encrypted."""
    place = Path(tempfile.mkdtemp(prefix=PLACE_PREFIX, dir=paths.data))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _sweep(paths: Paths, directory: Path) -> None:
    """Remove what a program that was killed left behind: only one runs at a time."""
    for place in paths.data.glob(f"{PLACE_PREFIX}*"):
        shutil.rmtree(place, ignore_errors=True)
    for path in directory.glob(f"{STAGED_PREFIX}*.cmbackup{STAGED_SUFFIX}"):
        path.unlink(missing_ok=True)
