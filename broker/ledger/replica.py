"""The journal as others copy it: marks, pages, rows taken over word for word, and forks.

A follower's journal is a prefix of the primary's, row by row the same. When it is not, because both
wrote, the follower's rows behind the last common one are orphans: they leave the journal for the
archive, whence they are brought to the primary. A row is never in both places.

Everything that changes history here is one transaction with the rest of its group, and a failure
in the middle voids the whole group.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import takewhile

from broker.errors import ForkedError, LedgerDamagedError, MalformedMessageError, UnknownKindError
from broker.ledger import folding, journal
from broker.ledger.file import FIRST_TERM
from broker.ledger.lines import line_bytes
from broker.ledger.local_state import LocalState
from broker.ledger.rows import Head, JournalRow
from broker.ledger.store import Parameters
from broker.units import UnixSeconds
from broker.wire import chain
from broker.wire.codec import decode_fact
from broker.wire.facts import AnyFact
from broker.wire.replica import Mark

ROWS_MAX = 4096
"""Rows of one page, however small they are."""

ONE_BY_ONE = 8
"""Newest rows that a locator names without a gap: a short fork is then found exactly."""

GENESIS = Mark(0, chain.GENESIS.hex())
"""What precedes the first row of every journal."""

_AT = "SELECT term, hash FROM journal WHERE sequence = ?"
_ROWS = journal.SELECT + " WHERE sequence > ? ORDER BY sequence LIMIT ?"
_HASHES = "SELECT hash FROM journal WHERE sequence >= ? ORDER BY sequence LIMIT ?"

_KEEPS_ITS_ROWS = "journal_keeps_its_rows"
_TRIGGER = "SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = ?"
_SET_ASIDE = """INSERT INTO archive (hash, sequence, term, at, node, incarnation, actor, event,
        payload, archived_at, adopted)
    SELECT hash, sequence, term, at, node, incarnation, actor, event, payload, ?, 0
    FROM journal WHERE sequence > ? ORDER BY sequence"""
_CUT = "DELETE FROM journal WHERE sequence > ?"

# An orphan's place is its own journal, which is gone; only its hash is left to name it.
_ORPHANS = """SELECT sequence, term, at, node, incarnation, actor, event, payload, x'', hash
    FROM archive WHERE adopted = 0 ORDER BY term, sequence, hash LIMIT ?"""
_ORPHAN_COUNT = "SELECT count(*) FROM archive WHERE adopted = 0"
_ADOPTED = "UPDATE archive SET adopted = 1 WHERE hash = ?"
_ARCHIVED = "SELECT EXISTS (SELECT 1 FROM archive)"
_BACK = "DELETE FROM archive WHERE hash = ?"


def locator_sequences(head_sequence: int) -> tuple[int, ...]:
    """Return the rows that a locator names, newest first.

    The last `ONE_BY_ONE` rows, then rows at distances that double, then row 1, then 0: 62 at most.
    Without row 1 two meshes could not be told from two long branches of one.
    """
    chosen = list(range(head_sequence, max(0, head_sequence - ONE_BY_ONE), -1))
    gap = 2
    while chosen and chosen[-1] - gap > 1:
        chosen.append(chosen[-1] - gap)
        gap *= 2
    if chosen and chosen[-1] > 1:
        chosen.append(1)
    return (*chosen, 0)


class Replica(LocalState):
    """Reads for a follower, and what a follower does with what it reads.

    Reads see the rows of the open group too: an answer made of them must not leave before the
    commit.
    """

    def locator(self) -> tuple[Mark, ...]:
        """Return marks of this journal, newest first and ever further apart, the beginning last."""
        return tuple(map(self.mark_at, locator_sequences(self._head.sequence)))

    def mark_at(self, sequence: int) -> Mark:
        """Return the mark of row `sequence`, 0 for what precedes the first.

        Raises:
            ValueError: The journal has no such row.
        """
        if sequence == 0:
            return GENESIS
        row = self._one(_AT, (sequence,))
        if row is None:
            raise ValueError(f"sequence={sequence} head={self._head.sequence}")
        return Mark(sequence, row[1].hex())

    def common_mark(self, locator: Iterable[Mark]) -> Mark | None:
        """Return the newest of these marks that this journal has, or None."""
        newest_first = sorted(locator, key=lambda mark: mark.sequence, reverse=True)
        return next((mark for mark in newest_first if self._head_at(mark) is not None), None)

    def rows_after(self, sequence: int, bytes_max: int) -> list[JournalRow]:
        """Return the rows behind `sequence` that a page of `bytes_max` holds, at least one."""
        return self._page(_ROWS, (sequence, ROWS_MAX), bytes_max)

    def shared(self, rows: Sequence[JournalRow]) -> int:
        """Return how many of `rows`, counted from the first, this journal has already."""
        if not rows:
            return 0
        own = self._all(_HASHES, (rows[0].sequence, len(rows)))
        pairs = zip(rows, own, strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0].hash == pair[1][0], pairs))

    def install(self, rows: Sequence[JournalRow]) -> None:
        """Take over rows of the primary's journal, word for word, into the open group.

        Raises:
            ForkedError: The first row does not follow this journal's last; nothing changed.
            MalformedMessageError: A row is not what its hash says, its term goes back, or it is no
                fact; nothing changed.
            UnknownKindError: A row is of a newer release; nothing changed, or, when it is one that
                a row adopts, the whole group is void.
            LedgerDamagedError: A row contradicts the rows before it. A journal cannot, so one of
                the two sides is damaged; the whole group is void.
            StorageError: The disk refused; the whole group is void.
        """
        self._require_group()
        facts = list(_facts(self._head, rows))
        if not rows:
            return
        with self._voiding("installed rows contradict the rows before them") as connection:
            for row, fact in zip(rows, facts, strict=True):
                folding.enter(connection, row, fact)
            if self._number(_ARCHIVED):
                connection.executemany(_BACK, ((row.hash,) for row in rows))
        self._head = journal.head_of(rows[-1])
        self.set_term(max(self._term, self._head.term))

    def fork_at(self, mark: Mark, now: UnixSeconds) -> int:
        """Set every row behind `mark` aside and stand there again; return how many they were.

        Part of the open group, so a crash leaves all of it or nothing. The term stays, and so do
        remembered replies: who asks again gets the answer that was given when this node was the
        primary, and what that answer promised comes home with the orphans.

        Raises:
            ForkedError: The journal has no such row; nothing changed.
            LedgerDamagedError: The rest is no whole ledger; the whole group is void.
            StorageError: The disk refused; the whole group is void.
        """
        self._require_group()
        base = self._head_at(mark)
        if base is None:
            raise ForkedError(f"this journal has no row {mark.sequence} with that hash")
        if base.sequence == self._head.sequence:
            return 0
        with self._voiding("the rows before the fork contradict each other") as connection:
            connection.execute(_SET_ASIDE, (now, base.sequence))
            cut = _cut(connection, base.sequence)
            folding.rebuild(connection)
        self._head = base
        return cut

    def orphans(self, bytes_max: int) -> list[JournalRow]:
        """Return the oldest archived rows nobody adopted that a page of `bytes_max` holds.

        At least one, if there is any. Their `previous_hash` is empty: the row is named by its hash.
        """
        return self._page(_ORPHANS, (ROWS_MAX,), bytes_max)

    def orphans_adopted(self, hashes: Iterable[bytes]) -> None:
        """Note that these archived rows are in the primary's journal now."""
        with self._writing() as connection:
            connection.executemany(_ADOPTED, ((row_hash,) for row_hash in hashes))

    def orphan_count(self) -> int:
        """Return how many archived rows nobody has adopted."""
        return self._number(_ORPHAN_COUNT)

    def _head_at(self, mark: Mark) -> Head | None:
        if mark == GENESIS:
            return Head(FIRST_TERM, mark.sequence, mark.hash)
        row = self._one(_AT, (mark.sequence,))
        if row is None or row[1].hex() != mark.hash:
            return None
        return Head(row[0], mark.sequence, mark.hash)

    def _page(self, statement: str, parameters: Parameters, bytes_max: int) -> list[JournalRow]:
        rows: list[JournalRow] = []
        left = bytes_max
        with self._translated(), closing(self._connection.execute(statement, parameters)) as lines:
            for line in lines:
                row = JournalRow(*line)
                left -= line_bytes(row)
                if rows and left < 0:
                    break
                rows.append(row)
        return rows

    @contextmanager
    def _voiding(self, contradiction: str) -> Iterator[sqlite3.Connection]:
        """Yield the connection; whatever goes wrong inside, nothing of the open group remains."""
        try:
            with self._translated():
                yield self._connection
        except sqlite3.IntegrityError as error:
            self._fail()
            raise LedgerDamagedError(
                f"{self._path}: {contradiction}: {error}; nothing was changed",
                hint="compare `certmesh audit verify` here and on the primary",
            ) from error
        except BaseException:
            self._fail()
            raise


def _facts(head: Head, rows: Iterable[JournalRow]) -> Iterator[AnyFact]:
    """Yield the facts of `rows`, each checked to continue the row before it."""
    for row in rows:
        journal.check_continues(head, row)
        yield _fact(row)
        head = journal.head_of(row)


def _fact(row: JournalRow) -> AnyFact:
    try:
        fact = decode_fact(row.payload)
    except UnknownKindError:
        raise UnknownKindError(
            f"row {row.sequence}, {row.event[:64]}, is of a newer release",
            hint="upgrade this node to the primary's release",
        ) from None
    if folding.event_of(fact) != row.event:
        raise MalformedMessageError(f"row {row.sequence} is called what it is not")
    return fact


def _cut(connection: sqlite3.Connection, sequence: int) -> int:
    """Delete the rows behind `sequence`: the one place where the journal is not append-only.

    The trigger goes and comes back inside the transaction, so no other reader or writer ever
    sees the journal without it, and a rollback brings it back too.
    """
    [(trigger,)] = connection.execute(_TRIGGER, (_KEEPS_ITS_ROWS,)).fetchall()
    connection.execute(f"DROP TRIGGER {_KEEPS_ITS_ROWS}")
    cut = connection.execute(_CUT, (sequence,)).rowcount
    connection.execute(trigger)
    return cut
