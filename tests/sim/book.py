"""The ledger of a simulated node: a hash-chained journal, an archive of orphans, and their fold.

Rows are shared between the books of a world and never change, so a backup is two short lists.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from broker.core.adoption import Orphan
from broker.units import UnixSeconds
from broker.wire.codec import decode_fact, encode_fact
from broker.wire.facts import (
    AnyFact,
    FactAdopted,
    InviteUsed,
    MemberJoined,
    MemberRevoked,
    MergeConflict,
    Origin,
)
from broker.wire.stamp import Stamp, Stamped, stamp_of

HASH_MASK = (1 << 61) - 1
ONE_BY_ONE = 8

Mark = tuple[int, int]
"""A row by number and hash."""
GENESIS: Mark = (0, 0)


class Row(NamedTuple):
    """One line of a journal; `hash` covers its stamp, its content and everything before it."""

    sequence: int
    term: int
    node: str
    incarnation: str
    fact: AnyFact
    hash: int

    def orphan(self) -> Orphan:
        """Return this row as it comes home to another journal, under its first origin."""
        if isinstance(self.fact, FactAdopted):
            return Orphan(self.fact.origin, decode_fact(self.fact.payload), self.fact.payload)
        stamp = (self.term, self.sequence, self.node, self.incarnation)
        origin = Origin(*stamp, UnixSeconds(0), "", f"{self.hash:x}")
        return Orphan(origin, self.fact, encode_fact(self.fact))


def chained(previous: int, stamp: Stamp, content: int) -> int:
    """Return the hash of a row; `content` numbers what is written, the same in every process."""
    place = (stamp.term, stamp.sequence, int(stamp.incarnation, 16))
    return hash((previous, *place, content)) & HASH_MASK


class Book:
    """One node's journal and what it says; the ledger of an adopting primary (`Known`)."""

    def __init__(self, rows: Iterable[Row] = (), archive: Iterable[Row] = ()) -> None:
        self.rows: list[Row] = []
        self.archive = {row.hash: row for row in archive}
        self.writing_term = 0
        self._forget()
        for row in rows:
            self.append(row)

    def _forget(self) -> None:
        self.hashes: set[int] = set()
        self.stamped: dict[Stamp, AnyFact] = {}
        self.joined: dict[str, str] = {}
        self.revoked: set[str] = set()
        self.used: dict[str, list[str]] = {}
        self._reviews: set[str] = set()

    @property
    def end(self) -> Mark:
        """The last row by number and hash."""
        return (len(self.rows), self.rows[-1].hash) if self.rows else GENESIS

    @property
    def last_term(self) -> int:
        """The term of the last row."""
        return self.rows[-1].term if self.rows else 0

    def append(self, row: Row) -> None:
        """Take a row that follows the last one."""
        assert row.sequence == len(self.rows) + 1
        self.rows.append(row)
        self.hashes.add(row.hash)
        self.archive.pop(row.hash, None)
        fact = row.fact
        if isinstance(fact, FactAdopted):
            self.hashes.add(int(fact.origin.hash, 16))
            self._enter(stamp_of(fact.origin), decode_fact(fact.payload))
        else:
            self._enter(Stamp(row.term, row.sequence, row.node, row.incarnation), fact)

    def _enter(self, stamp: Stamp, fact: AnyFact) -> None:
        self.stamped[stamp] = fact
        if isinstance(fact, MemberJoined):
            self.joined[fact.member_id] = fact.host
        elif isinstance(fact, MemberRevoked):
            self.revoked.add(fact.member_id)
        elif isinstance(fact, InviteUsed):
            self.used.setdefault(fact.invite_id, []).append(fact.member_id)
        elif isinstance(fact, MergeConflict):
            self._reviews.add(fact.review_id)

    def cut(self, sequence: int) -> int:
        """Set every row behind `sequence` aside; return how many they were."""
        kept, gone = self.rows[:sequence], self.rows[sequence:]
        self.archive.update((row.hash, row) for row in gone)
        self.rows = []
        self._forget()
        for row in kept:
            self.append(row)
        return len(gone)

    def orphans(self) -> list[Row]:
        """Return archived rows that are not in this journal again, in the order of their stamps.

        Only the journal itself says that a row is home: the word of a primary whose disk may be
        lost before a standby has it is not enough.
        """
        away = [row for row in self.archive.values() if _first_hash(row) not in self.hashes]
        return sorted(away, key=lambda row: (row.term, row.sequence, row.hash))

    # What a follower and a primary say to each other.

    def locator(self) -> tuple[Mark, ...]:
        """Return marks of this journal, newest first and ever further apart."""
        marks, at, gap = [], len(self.rows), 1
        while at > 0:
            marks.append((at, self.rows[at - 1].hash))
            gap = 1 if len(marks) < ONE_BY_ONE else gap * 2
            at -= gap
        return (*marks, GENESIS)

    def common(self, locator: Sequence[Mark]) -> Mark:
        """Return the newest of these marks that is in this journal."""
        return next((mark for mark in locator if self.has(mark)), GENESIS)

    def has(self, mark: Mark) -> bool:
        """Whether this journal has exactly this row."""
        sequence, row_hash = mark
        if sequence == 0:
            return True
        return sequence <= len(self.rows) and self.rows[sequence - 1].hash == row_hash

    def active_redeemers(self, invite_id: str) -> list[str]:
        """Return members that joined with this invite and are not revoked."""
        users = self.used.get(invite_id, ())
        return [member for member in users if member in self.joined and member not in self.revoked]

    # `broker.core.adoption.Known`: everything is about everything, which the rules allow.

    @property
    def term(self) -> int:
        """The term that the primary writes in."""
        return self.writing_term

    def holds_origin(self, origin: Origin) -> bool:
        """Whether a row of that origin is in this journal, as its own or adopted."""
        return int(origin.hash, 16) in self.hashes

    def facts_about(self, _fact: AnyFact) -> Iterable[Stamped]:
        """Return every fact of this journal."""
        return self.stamped.items()

    def review_listed(self, review_id: str) -> bool:
        """Whether a person was asked for this conflict."""
        return review_id in self._reviews


def _first_hash(row: Row) -> int:
    fact = row.fact
    return int(fact.origin.hash, 16) if isinstance(fact, FactAdopted) else row.hash
