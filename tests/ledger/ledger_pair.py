"""Two ledgers side by side, and copying one after the other as the mesh does."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.ledger import journal, projection
from broker.ledger.folding import event_of
from broker.ledger.lines import line_of, mark_of, rows_of
from broker.ledger.rows import Head, JournalRow
from broker.ledger.sqlite import Ledger
from broker.wire.codec import encode_fact
from broker.wire.facts import AnyFact
from broker.wire.replica import Mark
from tests.ledger.ledger_facts import NOW, issued, joined, mesh, renewed
from tests.ledger.ledger_room import APPEND_ONLY, write

FACTS = (mesh(), joined("web1", "a1"), issued("a1", "01"), renewed("a1", "02", "01"))
ALL = 1 << 30
"""Bytes of a page without a bound."""

Pair = tuple[Ledger, Ledger]


@contextmanager
def two_ledgers() -> Iterator[Pair]:
    """Yield two empty ledgers, of a primary and of a follower."""
    home = Path(tempfile.mkdtemp(prefix="cm-"))
    primary, follower = beside(home, "atlas"), beside(home, "boreas")
    try:
        yield primary, follower
    finally:
        primary.close()
        follower.close()
        shutil.rmtree(home)


@contextmanager
def checked_pair() -> Iterator[Pair]:
    """Yield a primary with four rows and an empty follower; check afterwards that both are whole.

    Whatever was tried: tables follow the journal, the chain holds, the guards are up.
    """
    with two_ledgers() as (primary, follower):
        write(primary, *FACTS)
        yield primary, follower
        for ledger in (primary, follower):
            ledger.rollback()
            assert ledger.differing_projections() == ()
            assert ledger.verify_chain()[2] is None
            assert guards(ledger) == set(APPEND_ONLY)


def beside(home: Path, node: str, known: Head | None = None) -> Ledger:
    """Return the ledger of `node` below `home`."""
    (home / node).mkdir(exist_ok=True)
    return Ledger.open(home / node / "ledger.db", node=node, known=known)


def again(ledger: Ledger, known: Head | None = None) -> Ledger:
    """Return what a new start finds on the disk."""
    return Ledger.open(ledger._path, node="again", known=known)


def install(ledger: Ledger, rows: list[JournalRow]) -> None:
    """Take `rows` over in a group of their own."""
    ledger.begin()
    ledger.install(rows)
    ledger.commit()


def copy_all(primary: Ledger, follower: Ledger, page_bytes: int = ALL) -> None:
    """Ask, fork if need be, and install, until there is nothing more."""
    while True:
        after = primary.common_mark(follower.locator())
        assert after is not None
        lines = [line_of(row) for row in primary.rows_after(after.sequence, page_bytes)]
        rows = rows_of(after, lines)
        if not rows and after.sequence == follower.head.sequence:
            return
        shared = follower.shared(rows)
        follower.begin()
        follower.fork_at(mark_of(rows[shared - 1]) if shared else after, NOW)
        follower.install(rows[shared:])
        follower.commit()


def well_made(after: Mark, term: int, *more: AnyFact) -> list[JournalRow]:
    """Return rows behind `after` that are linked as they should be, whatever they say."""
    stamp = journal.Stamp(term, NOW, "atlas", "ab", "test")
    head = Head(term, after.sequence, after.hash)
    rows: list[JournalRow] = []
    for fact in more:
        rows.append(journal.next_row(head, stamp, event_of(fact), encode_fact(fact)))
        head = journal.head_of(rows[-1])
    return rows


def state_of(ledger: Ledger) -> object:
    """Return all that a copy or a fork may change."""
    archive = ledger._connection.execute("SELECT * FROM archive ORDER BY hash").fetchall()
    tables = projection.dump(ledger._connection)
    return ledger.head, ledger.term, ledger.audit(0, 1000), tables, archive


def guards(ledger: Ledger) -> set[str]:
    """Return the triggers that keep the journal append-only."""
    names = ledger._connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")
    return {name for (name,) in names}
