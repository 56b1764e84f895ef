"""Projection tables as they are now: the fold of the journal, made afresh whenever they change.

A certificate has no state column. It is revoked when its member is, active when it is its
member's current one, superseded otherwise: revocation is one row and absorbs by construction. Its
DER lives in the journal row of the same sequence, once.

`sequence` is always a row of this journal. A `stamp` says when a fact was first written and by
whom; the two differ for adopted facts, and merge rules compare stamps alone. A stamp that is empty
is older than any: most members never get a second role or other doors, and their rows stay short.
"""

import sqlite3

PROJECTION_TABLES = (
    "mesh",
    "totals",
    "revocations",
    "bars",
    "members",
    "certificates",
    "invites",
    "approvals",
    "totp_steps",
    "totp_losers",
    "promotions",
    "adopted",
    "reviews",
    "rollovers",
    "tokens",
    "token_revocations",
    "worker_grants",
    "worker_keys",
    "worker_revocations",
)
"""In the order of their foreign keys; dropped in reverse."""

PROJECTIONS: tuple[str, ...] = (
    """CREATE TABLE mesh (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        mesh_id TEXT NOT NULL,
        name TEXT NOT NULL,
        domain TEXT NOT NULL,
        pin TEXT NOT NULL,
        enrollment_open INTEGER NOT NULL,
        policy TEXT NOT NULL,
        created_at INTEGER NOT NULL,
        enrollment_sequence INTEGER NOT NULL,
        enrollment_stamp TEXT NOT NULL,
        policy_stamp TEXT NOT NULL,
        policy_sequence INTEGER NOT NULL DEFAULT 0,
        totp_sequence INTEGER NOT NULL DEFAULT 0,
        totp_nonce BLOB NOT NULL DEFAULT x'',
        totp_ciphertext BLOB NOT NULL DEFAULT x'',
        totp_stamp TEXT NOT NULL DEFAULT '',
        recovery_key TEXT NOT NULL DEFAULT ''
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
        reason TEXT NOT NULL,
        stamp TEXT NOT NULL,
        cause TEXT NOT NULL
    ) STRICT""",
    # Of the members revoked by a person: `lifted` is the stamp of the word that freed the name.
    """CREATE TABLE bars (
        member_id TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL DEFAULT 0,
        at INTEGER NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        stamp TEXT NOT NULL DEFAULT '',
        lifted TEXT NOT NULL DEFAULT ''
    ) STRICT, WITHOUT ROWID""",
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
        last_not_after INTEGER NOT NULL DEFAULT 0,
        current_not_before INTEGER NOT NULL DEFAULT 0,
        stamp TEXT NOT NULL,
        nominated INTEGER NOT NULL DEFAULT 0,
        role_sequence INTEGER NOT NULL,
        role_stamp TEXT NOT NULL DEFAULT '',
        endpoint_stamp TEXT NOT NULL DEFAULT '',
        name_sequence INTEGER NOT NULL DEFAULT 0,
        name_stamp TEXT NOT NULL DEFAULT '',
        served_at INTEGER,
        serving_until INTEGER
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX members_by_host ON members (host, sequence)",
    "CREATE INDEX members_due ON members (renew_at, member_id) WHERE state = 'active'",
    # `serving_until` is the end of the certificate that is really served, which may be an old one.
    # With the state in it, counting reads the index alone: forty times as fast.
    """CREATE INDEX members_serving ON members (serving_until, member_id, state)
        WHERE state = 'active'""",
    # The condition of `serving_reads.TROUBLED`, word for word.
    """CREATE INDEX members_troubled ON members (current_sequence) WHERE state = 'active'
        AND (served IN ('stale', 'failed') OR last_error <> ''
            OR served_serial NOT IN ('', current_serial))""",
    "CREATE INDEX members_revoked ON members (last_not_after) WHERE state = 'revoked'",
    """CREATE INDEX members_holding_keys ON members (sequence)
        WHERE state = 'active' AND role IN ('primary', 'standby')""",
    "CREATE INDEX members_nominated ON members (sequence) WHERE state = 'active' AND nominated = 1",
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
        created_at INTEGER NOT NULL,
        term INTEGER NOT NULL,
        used_sequence INTEGER NOT NULL DEFAULT 0,
        used_stamp TEXT NOT NULL DEFAULT '',
        rejoin INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    # Few invites carry names of their own; whoever joins is compared with those alone.
    "CREATE INDEX invites_with_names ON invites (sequence) WHERE sans <> '[]'",
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
        member_id TEXT NOT NULL DEFAULT '',
        decided_stamp TEXT NOT NULL DEFAULT '',
        replaces TEXT NOT NULL DEFAULT '',
        note TEXT NOT NULL DEFAULT ''
    ) STRICT""",
    "CREATE INDEX approvals_by_key ON approvals (host, key_hash)",
    "CREATE INDEX approvals_by_state ON approvals (state)",
    "CREATE INDEX approvals_pending ON approvals (expires_at) WHERE state = 'pending'",
    """CREATE TABLE totp_steps (
        step INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        stamp TEXT NOT NULL,
        key_hash TEXT NOT NULL
    ) STRICT""",
    # Who spent a step after somebody else did, on the other side of a fork: a few rows at most, so
    # an index by random keys is harmless here.
    """CREATE TABLE totp_losers (
        step INTEGER NOT NULL,
        stamp TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        key_hash TEXT NOT NULL,
        PRIMARY KEY (step, stamp)
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX totp_losers_by_key ON totp_losers (key_hash)",
    """CREATE TABLE promotions (
        stamp TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL,
        member_id TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE adopted (
        origin_hash TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE reviews (
        review_id TEXT PRIMARY KEY,
        rule TEXT NOT NULL,
        subject TEXT NOT NULL,
        kept TEXT NOT NULL,
        lost TEXT NOT NULL,
        at INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        open INTEGER NOT NULL DEFAULT 1
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX reviews_open ON reviews (sequence) WHERE open = 1",
    """CREATE TABLE rollovers (
        pin TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL,
        phase TEXT NOT NULL CHECK (phase IN ('trusting', 'switched', 'retired', 'aborted')),
        root BLOB NOT NULL,
        issuing BLOB NOT NULL,
        retiring_pin TEXT NOT NULL,
        retiring_root BLOB NOT NULL,
        retiring_issuing BLOB NOT NULL,
        nonce BLOB NOT NULL,
        ciphertext BLOB NOT NULL,
        root_crl BLOB NOT NULL,
        started_at INTEGER NOT NULL,
        switched_sequence INTEGER NOT NULL DEFAULT 0
    ) STRICT""",
    """CREATE TABLE tokens (
        sequence INTEGER PRIMARY KEY,
        token_id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        scopes TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        created_at INTEGER NOT NULL
    ) STRICT""",
    """CREATE TABLE token_revocations (
        token_id TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE worker_grants (
        sequence INTEGER PRIMARY KEY,
        grant_id TEXT NOT NULL UNIQUE,
        member_id TEXT NOT NULL,
        host TEXT NOT NULL,
        enrolled_at INTEGER NOT NULL
    ) STRICT""",
    "CREATE INDEX worker_grants_by_member ON worker_grants (member_id)",
    """CREATE TABLE worker_keys (
        grant_id TEXT PRIMARY KEY,
        public_key TEXT NOT NULL,
        sequence INTEGER NOT NULL,
        stamp TEXT NOT NULL
    ) STRICT, WITHOUT ROWID""",
    "CREATE INDEX worker_keys_by_key ON worker_keys (public_key)",
    """CREATE TABLE worker_revocations (
        grant_id TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID""",
)


def make_afresh(connection: sqlite3.Connection) -> None:
    """Replace whatever projections the file has by empty ones, in the caller's transaction."""
    drop_projections(connection)
    for statement in PROJECTIONS:
        connection.execute(statement)


def drop_projections(connection: sqlite3.Connection) -> None:
    """Drop every projection table there is; its indexes go with it."""
    for table in reversed(PROJECTION_TABLES):
        connection.execute(f"DROP TABLE IF EXISTS {table}")
