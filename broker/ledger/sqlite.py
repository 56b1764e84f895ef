"""The ledger: an append-only, hash-chained journal and the projections that are its fold.

Invariants: a row and its projection are one transaction; the head moves with the commit; what is
committed has been synced to the disk; the chain from the first row to the head was verified when
the file was opened. Only a fork takes rows off the end of the journal, into the archive.

One process, one thread, one connection. The broker's lock on the data directory keeps others out.
"""

import sqlite3
from pathlib import Path
from typing import Self

from broker.errors import MeshError
from broker.ledger import folding, journal
from broker.ledger.door_reads import DoorReads
from broker.ledger.file import open_file
from broker.ledger.journal import ChainVerdict, Stamp
from broker.ledger.notice_store import NoticeStore
from broker.ledger.replica import Replica
from broker.ledger.rollover_reads import RolloverReads
from broker.ledger.rows import Head, JournalRow
from broker.ledger.serving_reads import ServingReads
from broker.ledger.token_reads import TokenReads
from broker.ledger.worker_reads import WorkerReads
from broker.units import UnixSeconds
from broker.wire.codec import decode_fact, encode_fact
from broker.wire.facts import AnyFact

ACTOR_LENGTH_MAX = 1024
"""What a line of a page carries, as `Text` says."""

_AFTER = journal.SELECT + " WHERE sequence > ? ORDER BY sequence LIMIT ?"
_LAST = journal.SELECT + " ORDER BY sequence DESC LIMIT ?"


class Ledger(ServingReads, DoorReads, TokenReads, WorkerReads, RolloverReads, NoticeStore, Replica):
    """The durable truth of one node."""

    def __init__(self, path: Path, connection: sqlite3.Connection, node: str) -> None:
        super().__init__(path, connection)
        self._node = node
        self._incarnation = self.incarnation

    @classmethod
    def open(cls, path: Path, *, node: str, known: Head | None = None) -> Self:
        """Return the verified ledger at `path`, created with mode 0600 when there is none.

        Args:
            path: The file; its directory exists.
            node: Host name written into every row.
            known: A head verified since this machine started; the walk begins behind it.

        Raises:
            LedgerDamagedError: The file is not a whole, untouched ledger of a known version.
            StorageError: The disk is full or somebody else holds the file.
        """
        return cls(path, open_file(path, known), node)

    def append(self, fact: AnyFact, *, actor: str, now: UnixSeconds) -> JournalRow:
        """Write one fact and fold it; the open transaction decides whether it happened.

        Raises:
            StorageError: The disk refused; the whole transaction was rolled back.
            ValueError: No transaction is open, the fact is out of its own bounds, or it contradicts
                the ledger (an id, serial or step used twice, a certificate for nobody); this one
                fact left nothing behind.
        """
        self._require_group()
        stamp = Stamp(self._term, now, self._node, self._incarnation, actor)
        row = journal.next_row(self._head, stamp, folding.event_of(fact), encode_fact(fact))
        _check_readable(row)
        try:
            folding.enter(self._connection, row, fact)
        except sqlite3.IntegrityError as error:
            raise ValueError(f"{row.event} contradicts the ledger: {error}") from error
        except OverflowError as error:
            self._fail()
            raise ValueError(f"{row.event} has a number that no column holds") from error
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from error
        self._head = journal.head_of(row)
        return row

    def audit(self, after: int, limit: int) -> list[JournalRow]:
        """Return up to `limit` rows after `after`, or the last `limit` when it is negative."""
        if after >= 0:
            return [JournalRow(*row) for row in self._all(_AFTER, (after, limit))]
        return [JournalRow(*row) for row in reversed(self._all(_LAST, (limit,)))]

    def verify_chain(self) -> tuple[int, str, int | None, str]:
        """Return (rows, head hash, first bad row or None, what is wrong with it)."""
        with self._translated():
            verdict: ChainVerdict = journal.check_chain(self._connection)
        return verdict.rows, verdict.head_hash.hex(), verdict.first_bad, verdict.detail

    def rebuild_projections(self) -> None:
        """Fold the journal into fresh tables; they equal the old ones unless those had rotted."""
        with self._writing() as connection:
            folding.rebuild(connection)

    def differing_projections(self) -> tuple[str, ...]:
        """Return the tables that are not the fold of the journal; reads all, for audits only.

        The chain proves the journal and nothing else: a bit that flips in a projection shows
        here alone.
        """
        with self._translated():
            return folding.differing(self._connection)


def _check_readable(row: JournalRow) -> None:
    """Refuse a row that no follower could take over: it would end replication for ever."""
    if len(row.actor) > ACTOR_LENGTH_MAX:
        raise ValueError(f"{row.event} has an actor of {len(row.actor)} characters")
    try:
        decode_fact(row.payload)
    except MeshError as error:
        raise ValueError(f"{row.event} could not be read again: {error.detail}") from error
