"""The ledger: an append-only, hash-chained journal and the projections that are its fold.

Invariants: a row and its projection are one transaction; the head moves with the commit; what is
committed has been synced to the disk; the chain from the first row to the head was verified when
the file was opened.

One process, one thread, one connection. The broker's lock on the data directory keeps others out.
"""

import sqlite3
from pathlib import Path
from typing import Self

from broker.ledger import journal, projection, schema
from broker.ledger.door_reads import DoorReads
from broker.ledger.file import open_file
from broker.ledger.journal import ChainVerdict, Stamp
from broker.ledger.local_state import LocalState
from broker.ledger.roster_reads import RosterReads
from broker.ledger.rows import Head, JournalRow
from broker.units import UnixSeconds
from broker.wire.codec import decode_fact, encode_fact
from broker.wire.facts import AnyFact

_AFTER = journal.SELECT + " WHERE sequence > ? ORDER BY sequence LIMIT ?"
_LAST = journal.SELECT + " ORDER BY sequence DESC LIMIT ?"


class Ledger(RosterReads, DoorReads, LocalState):
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
            ValueError: No transaction is open, or the fact contradicts the ledger (an id, serial
                or step used twice, a certificate for nobody); this one fact left nothing behind.
        """
        self._require_group()
        stamp = Stamp(self._term, now, self._node, self._incarnation, actor)
        row = journal.next_row(self._head, stamp, _event(fact), encode_fact(fact))
        try:
            projection.apply(self._connection, fact, row.sequence, now)
            journal.insert(self._connection, row)
        except sqlite3.IntegrityError as error:
            raise ValueError(f"{row.event} contradicts the ledger: {error}") from error
        except OverflowError as error:
            self._fail()
            raise ValueError(f"{row.event} has a number that no column holds") from error
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from error
        self._head = Head(row.term, row.sequence, row.hash.hex())
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
            schema.drop_projections(connection)
            schema.run_all(connection, schema.PROJECTIONS)
            _fold(connection, connection)

    def differing_projections(self) -> tuple[str, ...]:
        """Return the tables that are not the fold of the journal; reads all, for audits only.

        The chain proves the journal and nothing else: a bit that flips in a projection shows
        here alone.
        """
        fresh = sqlite3.connect(":memory:", isolation_level=None)
        try:
            with self._translated():
                schema.run_all(fresh, schema.PROJECTIONS)
                _fold(self._connection, fresh)
                live, folded = projection.dump(self._connection), projection.dump(fresh)
        finally:
            fresh.close()
        return tuple(table for table in live if live[table] != folded[table])


def _event(fact: AnyFact) -> str:
    tag = fact.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def _fold(source: sqlite3.Connection, target: sqlite3.Connection) -> None:
    for sequence, at, payload in source.execute(
        "SELECT sequence, at, payload FROM journal ORDER BY sequence"
    ):
        projection.apply(target, decode_fact(payload), sequence, at)
