"""What was verified since this machine started, so that a restart need not verify it again.

A broker that is killed must serve again in a moment, and the walk over a long journal takes
longer. The mark names the machine's boot, the file and a head; anything that does not match means
a full check. It proves nothing to anybody else: `certmesh audit verify` always walks from the
first row.

The chain proves the journal alone. A bit that flips in a projection would give another roster in
silence, so where the journal is walked the projections are compared with its fold and made again
if they differ: the journal is the truth.
"""

import sqlite3

import msgspec

from broker.errors import MalformedMessageError, StorageError
from broker.ledger.file import opening_trouble
from broker.ledger.rows import Head
from broker.ledger.sqlite import Ledger
from broker.runtime.boot import boot_id
from broker.runtime.events import EventName
from broker.runtime.files import write_atomic
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.wire.plain import decode_json

MARK = "ledger.verified"
FOLDED_ROWS_MAX = 20_000
"""Longer journals are folded by `certmesh audit verify` alone: a start has to be quick."""


class Mark(msgspec.Struct, frozen=True):
    """A verified head of one file in one boot of the machine."""

    boot: str
    inode: int
    term: int
    sequence: int
    hash: str


def open_ledger(paths: Paths, *, node: str) -> Ledger:
    """Open the ledger, walking only what this machine has not verified yet; raises as `open`."""
    known = _known(paths)
    ledger = Ledger.open(paths.ledger, node=node, known=known)
    head = ledger.head
    try:
        if known is None and head.sequence <= FOLDED_ROWS_MAX:
            _mend(ledger, paths)
    except BaseException:
        ledger.close()
        raise
    mark = Mark(boot_id(), paths.ledger.stat().st_ino, head.term, head.sequence, head.hash)
    try:
        write_atomic(paths.broker_run / MARK, msgspec.json.encode(mark))
    except OSError as error:
        ledger.close()
        raise StorageError(
            f"cannot write in {paths.broker_run}: {error.strerror}", hint="free space there"
        ) from error
    return ledger


def _mend(ledger: Ledger, paths: Paths) -> None:
    """Make the projections again if they are not what the journal says."""
    try:
        differing = ledger.differing_projections()
        if differing:
            log(EventName.LEDGER_MENDED, path=str(paths.ledger), tables=list(differing))
            ledger.rebuild_projections()
    except sqlite3.Error as error:
        # Such as a name in the schema that rotted: nothing of ours can mend that.
        raise opening_trouble(paths.ledger, error) from error


def _known(paths: Paths) -> Head | None:
    try:
        mark = decode_json((paths.broker_run / MARK).read_bytes(), Mark)
        inode = paths.ledger.stat().st_ino
    except (OSError, MalformedMessageError):
        return None
    if (mark.boot, mark.inode) != (boot_id(), inode):
        return None
    return Head(mark.term, mark.sequence, mark.hash)
