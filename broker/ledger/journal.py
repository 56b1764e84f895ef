"""The hash chain: every row names the row before it.

`hash = SHA-256(previous_hash || msgpack([sequence, term, at, node, incarnation, actor, event,
payload]))`, the first row follows 32 zero bytes. The chain shows every change inside the journal,
and the stored head shows rows cut off its end. It cannot show that the *whole file* was replaced
by an older one: signed heads held by other nodes are the memory against that.
"""

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from broker.errors import ForkedError, MalformedMessageError
from broker.ledger.rows import Head, JournalRow
from broker.units import UnixSeconds
from broker.wire.chain import GENESIS, Hashed, row_hash

SELECT = (
    "SELECT sequence, term, at, node, incarnation, actor, event, payload, previous_hash, hash "
    "FROM journal"
)
_INSERT = "INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FROM = SELECT + " WHERE sequence > ? ORDER BY sequence"
_HASHED_COLUMNS = 8

_Line = tuple[int, int, int, str, str, str, str, bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Stamp:
    """Who writes a row, when and in which term; the same for a whole group."""

    term: int
    at: UnixSeconds
    node: str
    incarnation: str
    actor: str


@dataclass(frozen=True, slots=True)
class ChainVerdict:
    """What a walk over the chain found; `first_bad` is None when it holds."""

    rows: int
    head_hash: bytes
    first_bad: int | None
    detail: str


def next_row(head: Head, stamp: Stamp, event: str, payload: bytes) -> JournalRow:
    """Return the row that follows `head`."""
    hashed = (
        head.sequence + 1,
        stamp.term,
        stamp.at,
        stamp.node,
        stamp.incarnation,
        stamp.actor,
        event,
        payload,
    )
    return linked(bytes.fromhex(head.hash), hashed)


def linked(previous: bytes, hashed: Hashed) -> JournalRow:
    """Return the row of these columns behind the row with the hash `previous`."""
    return JournalRow(*hashed, previous, row_hash(previous, hashed))


def check_continues(head: Head, row: JournalRow) -> None:
    """Check that `row` is the next one behind `head`.

    Raises:
        ForkedError: It follows another row.
        MalformedMessageError: It does not match its hash, or its term goes back.
    """
    number = f"row {row.sequence}"
    if row.sequence != head.sequence + 1 or row.previous_hash.hex() != head.hash:
        raise ForkedError(f"{number} does not follow row {head.sequence} of this journal")
    if row_hash(row.previous_hash, _hashed(row)) != row.hash:
        raise MalformedMessageError(f"{number} does not match its hash")
    if row.term < head.term:
        raise MalformedMessageError(f"{number} is of term {row.term}, behind term {head.term}")


def head_of(row: JournalRow) -> Head:
    """Return where a journal that ends with `row` stands."""
    return Head(row.term, row.sequence, row.hash.hex())


def insert(connection: sqlite3.Connection, row: JournalRow) -> None:
    """Write one row; the caller's transaction decides whether it happened."""
    connection.execute(_INSERT, (*_hashed(row), row.previous_hash, row.hash))


def read_head(connection: sqlite3.Connection) -> Head:
    """Return the head that the last commit recorded."""
    row = connection.execute("SELECT term, sequence, hash FROM head WHERE id = 1").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("the head row is missing")
    return Head(term=row[0], sequence=row[1], hash=row[2].hex())


def write_head(connection: sqlite3.Connection, head: Head) -> None:
    """Record where the journal stands, once per transaction."""
    connection.execute(
        "UPDATE head SET term = ?, sequence = ?, hash = ? WHERE id = 1",
        (head.term, head.sequence, bytes.fromhex(head.hash)),
    )


def has_row(connection: sqlite3.Connection, known: Head) -> bool:
    """Whether the journal has exactly this row."""
    row = connection.execute(
        "SELECT hash FROM journal WHERE sequence = ?", (known.sequence,)
    ).fetchone()
    return row is not None and bytes(row[0]).hex() == known.hash


def check_chain(connection: sqlite3.Connection, known: Head | None = None) -> ChainVerdict:
    """Recompute the hashes and compare the end with the recorded head.

    Rows are streamed and never decoded: about 3 us each.

    Args:
        connection: Any connection to the ledger.
        known: A head this machine verified before; rows up to it are not walked again. A ledger
            that does not have exactly this row is walked from the first one.
    """
    start, previous = 0, GENESIS
    if known is not None and has_row(connection, known):
        start, previous = known.sequence, bytes.fromhex(known.hash)
    verdict = _walk(connection.execute(_FROM, (start,)), start, previous)
    return verdict if verdict.first_bad is not None else _compare(verdict, read_head(connection))


def _walk(lines: Iterable[_Line], expected: int, previous: bytes) -> ChainVerdict:
    for line in lines:
        expected += 1
        if line[0] != expected or line[8] != previous:
            return ChainVerdict(expected - 1, previous, expected, _gap(line[0], expected))
        previous = row_hash(previous, line[:_HASHED_COLUMNS])
        if previous != line[9]:
            return ChainVerdict(expected - 1, line[8], expected, "the row does not match its hash")
    return ChainVerdict(expected, previous, None, "")


def _gap(found: int, expected: int) -> str:
    if found != expected:
        return f"row {expected} is missing, row {found} follows"
    return "the row does not continue the row before it"


def _compare(verdict: ChainVerdict, head: Head) -> ChainVerdict:
    if (verdict.rows, verdict.head_hash.hex()) == (head.sequence, head.hash):
        return verdict
    return ChainVerdict(
        rows=verdict.rows,
        head_hash=verdict.head_hash,
        first_bad=min(verdict.rows, head.sequence) + (verdict.rows != head.sequence),
        detail=f"the journal ends at row {verdict.rows}, its head says {head.sequence}",
    )


def _hashed(row: JournalRow) -> Hashed:
    return (
        row.sequence,
        row.term,
        row.at,
        row.node,
        row.incarnation,
        row.actor,
        row.event,
        row.payload,
    )
