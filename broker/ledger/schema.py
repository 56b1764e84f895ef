"""Tables of the ledger and their migrations.

Three kinds of tables: the journal (append-only, with its head), projections (the fold of the
journal, may be dropped and rebuilt at any time), and local state (not history: incarnation, term,
remembered replies, presence, notices).

Migrations: `MIGRATIONS[n]` brings `user_version` n to n + 1, each in a transaction of its own.
Never edit a released one; append. Projections are in none of them: one that changes a projection
ends with `refold`, which makes all of them as `tables` has them now.
"""

import sqlite3
from collections.abc import Callable, Sequence

from broker.errors import MeshError
from broker.ledger.projection import refold
from broker.ledger.tables import PROJECTIONS, drop_projections, make_afresh

__all__ = ["PROJECTIONS", "drop_projections", "migrate", "run_all", "version_of"]

APPLICATION_ID = 0x434D4C47
"""Written in the file's header, so that another program's database is not mistaken for ours."""

Step = str | Callable[[sqlite3.Connection], None]
Migration = tuple[Step, ...]

_JOURNAL: Migration = (
    """CREATE TABLE journal (
        sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
        term INTEGER NOT NULL,
        at INTEGER NOT NULL,
        node TEXT NOT NULL,
        incarnation TEXT NOT NULL,
        actor TEXT NOT NULL,
        event TEXT NOT NULL,
        payload BLOB NOT NULL,
        previous_hash BLOB NOT NULL,
        hash BLOB NOT NULL
    ) STRICT""",
    """CREATE TRIGGER journal_is_append_only BEFORE UPDATE ON journal
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END""",
    """CREATE TRIGGER journal_keeps_its_rows BEFORE DELETE ON journal
        BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END""",
    """CREATE TABLE head (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        term INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        hash BLOB NOT NULL
    ) STRICT""",
)

_LOCAL: Migration = (
    "CREATE TABLE local (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
    """CREATE TABLE requests (
        request_id BLOB PRIMARY KEY,
        at INTEGER NOT NULL,
        reply BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX requests_by_age ON requests (at)",
    "CREATE TABLE presence (member_id TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID",
)

_ARCHIVE: Migration = (
    """CREATE TABLE archive (
        hash BLOB PRIMARY KEY,
        sequence INTEGER NOT NULL,
        term INTEGER NOT NULL,
        at INTEGER NOT NULL,
        node TEXT NOT NULL,
        incarnation TEXT NOT NULL,
        actor TEXT NOT NULL,
        event TEXT NOT NULL,
        payload BLOB NOT NULL,
        archived_at INTEGER NOT NULL,
        adopted INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
)

_NOTICES: Migration = (
    """CREATE TABLE IF NOT EXISTS troubles (
        event TEXT NOT NULL,
        about TEXT NOT NULL,
        host TEXT NOT NULL,
        at INTEGER NOT NULL,
        step INTEGER NOT NULL,
        mark TEXT NOT NULL,
        detail TEXT NOT NULL,
        told INTEGER NOT NULL,
        PRIMARY KEY (about, event)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX IF NOT EXISTS troubles_by_kind ON troubles (event, told, at)",
    """CREATE TABLE IF NOT EXISTS notices (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        notice_id TEXT NOT NULL UNIQUE,
        body BLOB NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'dropped')),
        attempts INTEGER NOT NULL,
        tries BLOB NOT NULL
    ) STRICT""",
    "CREATE INDEX IF NOT EXISTS notices_waiting ON notices (number) WHERE state = 'waiting'",
)


def _refold(connection: sqlite3.Connection) -> None:
    make_afresh(connection)
    try:
        refold(connection, connection)
    except MeshError as error:
        # The chain is checked only after this, so a row may hold anything.
        raise sqlite3.DatabaseError(f"a row of the journal holds no fact: {error}") from error


MIGRATIONS: tuple[Migration, ...] = (
    (*_JOURNAL, *_LOCAL),
    (*_ARCHIVE, _refold),
    (_refold,),
    (_refold,),
    _NOTICES,
)


def version_of(connection: sqlite3.Connection) -> int:
    """Return the schema version of the file; 0 for a file without tables of ours."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version)


def migrate(
    connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS
) -> tuple[int, int]:
    """Bring the file to the newest version; return the versions before and after.

    Raises:
        ValueError: The file is newer than `migrations`; the caller looks first.
    """
    before = version_of(connection)
    if before > len(migrations):
        raise ValueError(f"user_version={before} known={len(migrations)}")
    for number in range(before, len(migrations)):
        _step(connection, migrations[number], number + 1)
    return before, len(migrations)


def _step(connection: sqlite3.Connection, statements: Migration, version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        run_all(connection, statements)
        # PRAGMA takes no parameters; `version` is a number of ours.
        connection.execute(f"PRAGMA user_version = {version:d}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def run_all(connection: sqlite3.Connection, steps: Sequence[Step]) -> None:
    """Run `steps` one by one inside the caller's transaction (a script would commit it)."""
    for step in steps:
        if isinstance(step, str):
            connection.execute(step)
        else:
            step(connection)
