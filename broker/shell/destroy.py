"""`python -m broker destroy SETTINGS`: end a mesh on purpose, and keep its history.

The last row of the journal says so (not in a restored copy that never served: its mesh is not
its own to end); then the journal is set aside, every key is overwritten and
removed, and the membership goes last: a crash before that leaves a node that can be destroyed
again. Backups stay where they are; nobody opens them without the kit.

Overwriting is the best that can be done from here. On copy-on-write file systems and on flash
the old octets may live on for a while; what protects a key then is that it was never there in
the clear.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from broker.clock import wall_s
from broker.core.election import PRIMARY
from broker.core.observation import Standing
from broker.core.phases import Phase
from broker.errors import (
    ConflictError,
    MeshError,
    NoMeshError,
    NotPrimaryError,
    StorageError,
)
from broker.ledger.keepsake import copies
from broker.ledger.rows import JournalRow
from broker.ledger.sqlite import Ledger
from broker.runtime.curve import curve_directory
from broker.runtime.exits import Exit
from broker.runtime.files import fsync_directory, private_directory, write_atomic
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.shell.create import UNFINISHED
from broker.shell.lock import only_broker
from broker.shell.membership import read_membership
from broker.shell.restored import LOCAL_RESTORED
from broker.shell.safekeeping import RestoreMark
from broker.shell.standing import LOCAL_ELECTION
from broker.wire.backup import Destroyed, DestroyWish
from broker.wire.codec import decode_body, decode_fact
from broker.wire.facts import MeshDestroyed
from broker.wire.node import Membership

TRAIL = "audit.ndjson"
PAGE_ROWS = 500
CHUNK_BYTES = 65_536
MESH_DESTROYED = "mesh.destroyed"


def destroy(_settings: Settings, paths: Paths) -> int:
    """Read a `DestroyWish` from standard input, end the mesh, print the `Destroyed`."""
    try:
        wish = msgspec.json.decode(sys.stdin.buffer.read(), type=DestroyWish)
        with only_broker(paths.lock):
            done = destroy_mesh(paths, wish)
    except MeshError as error:
        answer = {"code": error.code.value, "detail": error.detail, "hint": error.hint}
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        return Exit.FAILED
    sys.stdout.write(msgspec.json.encode(done).decode() + "\n")
    return Exit.OK


def destroy_mesh(paths: Paths, wish: DestroyWish) -> Destroyed:
    """End the mesh of this node.

    Raises:
        NoMeshError: It belongs to none.
        ConflictError: Another name was given, or another node holds the CA key too.
        NotPrimaryError: Another node leads this mesh.
        StorageError: The disk refused; trying again is safe.
    """
    membership = read_membership(paths)
    if membership is None:
        raise NoMeshError("this node belongs to no mesh", hint="nothing was changed")
    if wish.mesh_name != membership.mesh_name:
        raise ConflictError(
            f"this node belongs to the mesh {membership.mesh_name}; nothing was changed",
            hint=f"to destroy it: --mesh {membership.mesh_name}",
        )
    try:
        kept = _kept(paths, membership)
        rows = _end_journal(paths, membership, wish, kept)
        for path in _secret_files(paths):
            _overwrite(path)
        _remove_trees(paths)
        paths.membership.rename(kept / paths.membership.name)
        fsync_directory(paths.data)
    except OSError as error:
        raise StorageError(
            f"the mesh is not destroyed yet: {error.strerror}", hint="run the command again"
        ) from None
    return Destroyed(membership.mesh_id, membership.mesh_name, str(kept), rows)


def _kept(paths: Paths, membership: Membership) -> Path:
    """Return where history goes; an attempt that was cut short goes on in its own place."""
    earlier = sorted(paths.data.glob(f"destroyed-{membership.mesh_name}-*"))
    # Not by its place in the list: a mesh whose name goes on behind this one's sorts among them.
    cut_short = [path for path in earlier if not (path / paths.membership.name).exists()]
    if cut_short:
        return cut_short[-1]
    moment = datetime.fromtimestamp(wall_s(), UTC).strftime("%Y%m%dT%H%M%SZ")
    return paths.data / f"destroyed-{membership.mesh_name}-{moment}"


def _end_journal(paths: Paths, membership: Membership, wish: DestroyWish, kept: Path) -> int:
    """Write the last row, the trail for people, and set both aside; return the number of rows."""
    aside = kept / paths.ledger.name
    if not paths.ledger.exists():
        with closing(Ledger.open(aside, node=membership.host)) as ledger:
            return ledger.head.sequence
    with closing(Ledger.open(paths.ledger, node=membership.host)) as ledger:
        last = ledger.audit(-1, 1)
        if not _is_mere_copy(ledger) and (not last or last[0].event != MESH_DESTROYED):
            _check_lead(ledger, membership)
            ledger.begin()
            ledger.append(MeshDestroyed(membership.host), actor=wish.operator, now=wall_s())
            ledger.commit()
        rows = ledger.head.sequence
        private_directory(kept)
        write_atomic(kept / TRAIL, b"".join(_trail(ledger)))
    for copy in copies(paths.ledger):
        copy.rename(kept / copy.name)
    paths.ledger.rename(aside)
    fsync_directory(kept)
    fsync_directory(paths.data)
    return rows


def _is_mere_copy(ledger: Ledger) -> bool:
    """Whether this node was restored and never went on: the mesh is elsewhere, and lives on."""
    raw = ledger.local_get(LOCAL_RESTORED)
    return raw is not None and not decode_body(raw, RestoreMark).settled


def _check_lead(ledger: Ledger, membership: Membership) -> None:
    """Refuse where the mesh would live on: another key holder would only take over."""
    raw = ledger.local_get(LOCAL_ELECTION)
    phase = Phase(decode_body(raw, Standing).phase) if raw else Phase.SERVING
    if ledger.mesh() is None or phase not in PRIMARY:
        raise NotPrimaryError(
            f"{membership.host} does not lead {membership.mesh_name}; nothing was changed",
            hint="run this on the primary; a member leaves with: certmesh leave",
        )
    others = [row.host for row in ledger.key_holders() if row.host != membership.host]
    if others:
        raise ConflictError(
            f"{', '.join(others)} holds the CA key too and would take over; nothing was changed",
            hint=f"first: certmesh standby remove {others[0]}",
        )


def _trail(ledger: Ledger) -> Iterator[bytes]:
    """Yield the journal as lines of JSON that need no program of ours to be read."""
    after = 0
    while rows := ledger.audit(after, PAGE_ROWS):
        for row in rows:
            yield _line(row) + b"\n"
        after = rows[-1].sequence


def _line(row: JournalRow) -> bytes:
    return msgspec.json.encode(
        {
            "sequence": row.sequence,
            "term": row.term,
            "at": row.at,
            "node": row.node,
            "actor": row.actor,
            "event": row.event,
            "fields": msgspec.to_builtins(decode_fact(row.payload)),
            "hash": row.hash.hex(),
        }
    )


def _secret_files(paths: Paths) -> list[Path]:
    """Return every file that holds a key, sealed or not."""
    places = (*_places(paths), *_unfinished(paths))
    return [path for place in places for path in sorted(place.rglob("*")) if _is_file(path)]


def _places(paths: Paths) -> tuple[Path, ...]:
    keys = (paths.credential.parent, paths.certificates, curve_directory(paths))
    return (*keys, *_authorities(paths))


def _unfinished(paths: Paths) -> list[Path]:
    """Return what earlier attempts to make or restore a node left, a vault and its key file."""
    return sorted(path for path in paths.data.glob(f"{UNFINISHED}*") if path.is_dir())


def _authorities(paths: Paths) -> list[Path]:
    """Return the CA directory and all that was set aside beside it."""
    beside = sorted(paths.data.glob(f"{paths.authority.name}.*"))
    return [path for path in (paths.authority, *beside) if path.is_dir()]


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _overwrite(path: Path) -> None:
    """Write over a file in its place, durably, before it is removed."""
    left = path.stat().st_size
    with path.open("r+b", buffering=0) as file:
        while left > 0:
            left -= file.write(os.urandom(min(left, CHUNK_BYTES)))
        os.fsync(file.fileno())


def _remove_trees(paths: Paths) -> None:
    """Remove files before directories, links without following them."""
    for place in (*_places(paths), *_unfinished(paths)):
        for path in sorted(place.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
        if place.is_dir():
            place.rmdir()
    fsync_directory(paths.data)
