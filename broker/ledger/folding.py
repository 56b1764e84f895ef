"""A row and its fold: one row at a time, or the whole journal again.

The whole is folded again after history changed, and to see whether a table has rotted.
"""

import sqlite3

from broker.ledger import journal, projection
from broker.ledger.legible import legible
from broker.ledger.rows import JournalRow
from broker.ledger.tables import make_afresh
from broker.ledger.where import Where
from broker.wire.facts import AnyFact


def event_of(fact: AnyFact) -> str:
    """Return the name of `fact` in the audit trail."""
    tag = fact.__struct_config__.tag
    assert isinstance(tag, str)
    return tag


def enter(connection: sqlite3.Connection, row: JournalRow, fact: AnyFact) -> None:
    """Fold `fact` and write its row; the caller's transaction decides whether it happened.

    Raises:
        sqlite3.IntegrityError: The fact contradicts the ledger; nothing changed.
    """
    where = Where(row.sequence, row.at, row.term, row.node, row.incarnation)
    projection.apply(connection, fact, where)
    journal.insert(connection, row)


def rebuild(connection: sqlite3.Connection) -> None:
    """Replace the projections by the fold of the journal, inside the caller's transaction."""
    make_afresh(connection)
    projection.refold(connection, connection)


def differing(connection: sqlite3.Connection) -> tuple[str, ...]:
    """Return the projections that are not the fold of the journal."""
    fresh = sqlite3.connect(":memory:", isolation_level=None)
    try:
        make_afresh(fresh)
        projection.refold(connection, fresh)
        folded = projection.dump(fresh)
    finally:
        fresh.close()
    try:
        with legible():
            live = projection.dump(connection)
    except sqlite3.DatabaseError:
        return tuple(folded)  # text that is none any more cannot even be compared
    return tuple(table for table in live if live[table] != folded[table])
