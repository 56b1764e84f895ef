-- Every table of a ledger of version 1, as that release made them.

CREATE TABLE journal (
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
) STRICT;

CREATE TRIGGER journal_is_append_only BEFORE UPDATE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TRIGGER journal_keeps_its_rows BEFORE DELETE ON journal
    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

CREATE TABLE head (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        term INTEGER NOT NULL,
        sequence INTEGER NOT NULL,
        hash BLOB NOT NULL
) STRICT;

CREATE TABLE local (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE requests (
        request_id BLOB PRIMARY KEY,
        at INTEGER NOT NULL,
        reply BLOB NOT NULL
) STRICT;

CREATE INDEX requests_by_age ON requests (at);

CREATE TABLE presence (member_id TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE mesh (
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
) STRICT;

CREATE TABLE totals (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        members_active INTEGER NOT NULL,
        bundle_sequence INTEGER NOT NULL
) STRICT;

INSERT INTO totals VALUES (1, 0, 0);

CREATE TABLE revocations (
        sequence INTEGER PRIMARY KEY,
        member_id TEXT NOT NULL UNIQUE,
        revoked_at INTEGER NOT NULL,
        reason TEXT NOT NULL
) STRICT;

CREATE TABLE members (
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
) STRICT, WITHOUT ROWID;

CREATE INDEX members_by_host ON members (host, sequence);

CREATE INDEX members_due ON members (renew_at, member_id) WHERE state = 'active';

CREATE INDEX members_expiring ON members (not_after) WHERE state = 'active';

CREATE INDEX members_revoked ON members (last_not_after) WHERE state = 'revoked';

CREATE INDEX members_holding_keys ON members (sequence)
    WHERE state = 'active' AND role IN ('primary', 'standby');

CREATE TABLE certificates (
        sequence INTEGER PRIMARY KEY,
        serial TEXT NOT NULL UNIQUE,
        member_id TEXT NOT NULL REFERENCES members (member_id),
        previous INTEGER NOT NULL,
        key_hash TEXT NOT NULL,
        not_before INTEGER NOT NULL,
        not_after INTEGER NOT NULL,
        renew_at INTEGER NOT NULL
) STRICT;

CREATE TABLE invites (
        sequence INTEGER PRIMARY KEY,
        invite_id TEXT NOT NULL UNIQUE,
        host TEXT NOT NULL,
        sans TEXT NOT NULL,
        expires_at INTEGER NOT NULL,
        state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'used', 'revoked')),
        member_id TEXT NOT NULL DEFAULT '',
        key_hash TEXT NOT NULL DEFAULT '',
        created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE approvals (
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
) STRICT;

CREATE INDEX approvals_by_key ON approvals (host, key_hash);

CREATE INDEX approvals_by_state ON approvals (state);

CREATE INDEX approvals_pending ON approvals (expires_at) WHERE state = 'pending';

CREATE TABLE totp_steps (step INTEGER PRIMARY KEY, at INTEGER NOT NULL) STRICT;
