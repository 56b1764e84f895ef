"""Folds of the roster: enrollments, certificates, the closed loop, revocation.

Revocation absorbs wherever it stands, also ahead of the join it revokes.
"""

import sqlite3

from broker.ledger.texts import bundle_changed, text
from broker.wire import facts

_JOIN = """INSERT INTO members (member_id, sequence, host, role, sans, endpoint, joined_at, method,
               state, revoked_at)
           SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8,
               iif(known.id IS NULL, 'active', 'revoked'), known.at
           FROM (SELECT max(member_id) AS id, max(revoked_at) AS at
                 FROM revocations WHERE member_id = ?1) AS known
           RETURNING state"""


def member_joined(db: sqlite3.Connection, fact: facts.MemberJoined, sequence: int, at: int) -> None:
    """Add an enrollment; revoked at birth when its revocation came first."""
    # The subquery always yields one row: with the revocation that came first, or with nulls.
    joined = (
        fact.member_id,
        sequence,
        fact.host,
        fact.role,
        text(fact.sans),
        text(fact.endpoint),
        at,
        fact.method,
    )
    [(state,)] = db.execute(_JOIN, joined).fetchall()
    if state == "active":
        db.execute("UPDATE totals SET members_active = members_active + 1 WHERE id = 1")
    if fact.approval_id:
        db.execute(
            "UPDATE approvals SET state = 'issued', member_id = ? "
            "WHERE approval_id = ? AND state <> 'issued'",
            (fact.member_id, fact.approval_id),
        )
    if state == "active" and fact.role in {"primary", "standby"}:
        bundle_changed(db, sequence)


def member_moved(db: sqlite3.Connection, fact: facts.MemberMoved, sequence: int, _at: int) -> None:
    """Point at the new doors."""
    moved = db.execute(
        "UPDATE members SET endpoint = ? WHERE member_id = ? RETURNING state, role",
        (text(fact.endpoint), fact.member_id),
    ).fetchall()
    if moved in ([("active", "primary")], [("active", "standby")]):
        bundle_changed(db, sequence)


_ISSUE = """INSERT INTO certificates
            SELECT ?, ?, member_id, current_sequence, ?, ?, ?, ? FROM members WHERE member_id = ?"""
_CURRENT = """UPDATE members SET current_sequence = ?, current_serial = ?, renew_at = ?,
                  not_after = ?, last_not_after = max(last_not_after, ?)
              WHERE member_id = ? AND state = ?"""


def certificate_issued(
    db: sqlite3.Connection,
    fact: facts.CertificateIssued | facts.CertificateRenewed,
    sequence: int,
    _at: int,
) -> None:
    """Make it the member's current certificate."""
    period = (fact.not_before, fact.not_after, fact.renew_at)
    issued = (sequence, fact.serial, fact.key_hash, *period, fact.member_id)
    if not db.execute(_ISSUE, issued).rowcount:
        raise sqlite3.IntegrityError("a certificate for nobody")
    ends = (fact.renew_at, fact.not_after, fact.not_after)
    current = (sequence, fact.serial, *ends, fact.member_id)
    if db.execute(_CURRENT, (*current, "active")).rowcount:
        return
    # A certificate of somebody already revoked is revoked at birth and belongs in the bundle.
    db.execute(_CURRENT, (*current, "revoked"))
    bundle_changed(db, sequence)


def certificate_served(
    db: sqlite3.Connection, fact: facts.CertificateServed, _sequence: int, _at: int
) -> None:
    """Follow the closed loop; a certificate in place ends the last error."""
    db.execute(
        """UPDATE members SET served = ?1, served_serial = ?2, served_detail = ?3,
               last_error = iif(?1 IN ('served', 'installed'), '', last_error)
           WHERE member_id = ?4""",
        (fact.state, fact.serial, fact.detail, fact.member_id),
    )


def renewal_failed(
    db: sqlite3.Connection, fact: facts.RenewalFailed, _sequence: int, _at: int
) -> None:
    """Remember why the last attempt failed."""
    db.execute(
        "UPDATE members SET last_error = ? WHERE member_id = ?", (fact.detail, fact.member_id)
    )


def member_revoked(
    db: sqlite3.Connection, fact: facts.MemberRevoked, sequence: int, at: int
) -> None:
    """Revoke once and for ever; the first revocation counts."""
    added = db.execute(
        "INSERT INTO revocations VALUES (?, ?, ?, ?) ON CONFLICT (member_id) DO NOTHING",
        (sequence, fact.member_id, at, fact.reason),
    )
    if not added.rowcount:
        return
    left = db.execute(
        "UPDATE members SET state = 'revoked', revoked_at = ? WHERE member_id = ?",
        (at, fact.member_id),
    )
    db.execute(
        "UPDATE totals SET members_active = members_active - ? WHERE id = 1", (left.rowcount,)
    )
    bundle_changed(db, sequence)
