"""Tables of the ledger and their migrations.

Three kinds of tables: the journal (append-only, with its head), projections (the fold of the
journal, may be dropped and rebuilt at any time), and local state (not history: incarnation, term,
remembered replies, presence).

A certificate has no state column. It is revoked when its member is, active when it is its
member's current one, superseded otherwise: revocation is one row and absorbs by construction. Its
DER lives in the journal row of the same sequence, once.

Migrations: `MIGRATIONS[n]` brings `user_version` n to n + 1, each in a transaction of its own.
Never edit a released one; append. One that changes projections ends with a rebuild.
"""

import sqlite3
from collections.abc import Sequence

APPLICATION_ID = 0x434D4C47
"""Written in the file's header, so that another program's database is not mistaken for ours."""

Migration = tuple[str, ...]

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

PROJECTION_TABLES = (
    "mesh",
    "totals",
    "revocations",
    "members",
    "certificates",
    "invites",
    "approvals",
    "totp_steps",
)
"""In the order of their foreign keys; dropped in reverse."""

PROJECTIONS: Migration = (
    """CREATE TABLE mesh (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        mesh_id TEXT NOT NULL,
        name TEXT NOT NULL,
        domain TEXT NOT NULL,
        pin TEXT NOT NULL,
        enrollment_open INTEGER NOT NULL,
        approval INTEGER NOT NULL,
        names TEXT NOT NULL,
        networks TEXT NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT""",
    # Counting a million rows takes milliseconds; a number kept by the fold takes none.
    """CREATE TABLE totals (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        members_active INTEGER NOT NULL,
        bundle_sequence INTEGER NOT NULL
    ) STRICT""",
    "INSERT INTO totals VALUES (1, 0, 0)",
    """CREATE TABLE revocations (
        sequence INTEGER PRIMARY KEY,
        member_id TEXT NOT NULL UNIQUE,
        revoked_at INTEGER NOT NULL,
        reason TEXT NOT NULL
    ) STRICT""",
    """CREATE TABLE members (
        member_id TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL,
        host TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('active', 'revoked')),
        role TEXT NOT NULL,
        sans TEXT NOT NULL,
        endpoint TEXT NOT NULL,
        joined_at INTEGER NOT NULL,
        method TEXT NOT NULL,
        current_serial TEXT NOT NULL DEFAULT '',
        revoked_at INTEGER,
        served TEXT NOT NULL DEFAULT 'unknown',
        served_serial TEXT NOT NULL DEFAULT '',
        served_detail TEXT NOT NULL DEFAULT '',
        last_error TEXT NOT NULL DEFAULT '',
        current_sequence INTEGER NOT NULL DEFAULT 0,
        renew_at INTEGER,
        not_after INTEGER,
        last_not_after INTEGER NOT NULL DEFAULT 0
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX members_by_host ON members (host, sequence)",
    "CREATE INDEX members_due ON members (renew_at, member_id) WHERE state = 'active'",
    "CREATE INDEX members_expiring ON members (not_after) WHERE state = 'active'",
    "CREATE INDEX members_revoked ON members (last_not_after) WHERE state = 'revoked'",
    """CREATE INDEX members_holding_keys ON members (sequence)
        WHERE state = 'active' AND role IN ('primary', 'standby')""",
    # `previous` is the row of the member's certificate before this one: a list costs no page of
    # its own, an index by random member ids dirties one more for every renewal.
    """CREATE TABLE certificates (
        sequence INTEGER PRIMARY KEY,
        serial TEXT NOT NULL UNIQUE,
        member_id TEXT NOT NULL REFERENCES members (member_id),
        previous INTEGER NOT NULL,
        key_hash TEXT NOT NULL,
        not_before INTEGER NOT NULL,
        not_after INTEGER NOT NULL,
        renew_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE invites (
        sequence INTEGER PRIMARY KEY,
        invite_id TEXT NOT NULL UNIQUE,
        host TEXT NOT NULL,
        sans TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'used', 'revoked')),
        member_id TEXT NOT NULL DEFAULT '',
        key_hash TEXT NOT NULL DEFAULT '',
        created_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE approvals (
        sequence INTEGER PRIMARY KEY,
        approval_id TEXT NOT NULL UNIQUE,
        host TEXT NOT NULL,
        sans TEXT NOT NULL,
        csr BLOB NOT NULL,
        key_hash TEXT NOT NULL,
        ticket_hash TEXT NOT NULL,
        method TEXT NOT NULL,
        source TEXT NOT NULL,
        words TEXT NOT NULL,
        addresses TEXT NOT NULL,
        mesh_port INTEGER NOT NULL,
        enroll_port INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        invite_id TEXT NOT NULL,
        requested_at INTEGER NOT NULL,
        state TEXT NOT NULL DEFAULT 'pending'
            CHECK (state IN ('pending', 'approved', 'denied', 'expired', 'issued')),
        operator TEXT NOT NULL DEFAULT '',
        reason TEXT NOT NULL DEFAULT '',
        member_id TEXT NOT NULL DEFAULT ''
    ) STRICT""",
    "CREATE INDEX approvals_by_key ON approvals (host, key_hash)",
    "CREATE INDEX approvals_by_state ON approvals (state)",
    "CREATE INDEX approvals_pending ON approvals (expires_at) WHERE state = 'pending'",
    "CREATE TABLE totp_steps (step INTEGER PRIMARY KEY, at INTEGER NOT NULL) STRICT",
)

MIGRATIONS: tuple[Migration, ...] = ((*_JOURNAL, *_LOCAL, *PROJECTIONS),)


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
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def run_all(connection: sqlite3.Connection, statements: Sequence[str]) -> None:
    """Run `statements` one by one inside the caller's transaction (a script would commit it)."""
    for statement in statements:
        connection.execute(statement)


def drop_projections(connection: sqlite3.Connection) -> None:
    """Drop every projection table; its indexes go with it."""
    for table in reversed(PROJECTION_TABLES):
        connection.execute(f"DROP TABLE {table}")
