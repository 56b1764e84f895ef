"""Folds of the door: mesh settings, invites, TOTP steps, approvals.

The first redeemer keeps an invite; the first decision keeps an approval; a join settles it.
"""

import sqlite3

from broker.ledger.texts import bundle_changed, text
from broker.wire import facts


def mesh_created(db: sqlite3.Connection, fact: facts.MeshCreated, sequence: int, at: int) -> None:
    """Record the mesh; a second one is a contradiction."""
    db.execute(
        "INSERT INTO mesh VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            fact.mesh_id,
            fact.name,
            fact.domain,
            fact.pin,
            fact.enrollment_open,
            fact.approval,
            text(fact.names),
            text(fact.networks),
            at,
        ),
    )
    bundle_changed(db, sequence)


def enrollment_opened(
    db: sqlite3.Connection, _fact: facts.EnrollmentOpened, _sequence: int, _at: int
) -> None:
    """Let strangers with a code ask."""
    db.execute("UPDATE mesh SET enrollment_open = 1 WHERE id = 1")


def enrollment_closed(
    db: sqlite3.Connection, _fact: facts.EnrollmentClosed, _sequence: int, _at: int
) -> None:
    """Turn strangers away."""
    db.execute("UPDATE mesh SET enrollment_open = 0 WHERE id = 1")


def invite_created(
    db: sqlite3.Connection, fact: facts.InviteCreated, sequence: int, at: int
) -> None:
    """Add an open invite."""
    db.execute(
        """INSERT INTO invites (sequence, invite_id, host, sans, expires_at, created_at)
           VALUES (?, ?, ?, ?, ?, ?)""",
        (sequence, fact.invite_id, fact.host, text(fact.sans), fact.expires_at, at),
    )


def invite_used(db: sqlite3.Connection, fact: facts.InviteUsed, _sequence: int, _at: int) -> None:
    """Give the invite to its first redeemer, for ever."""
    db.execute(
        """UPDATE invites SET state = 'used', member_id = ?, key_hash = ?
           WHERE invite_id = ? AND state <> 'used'""",
        (fact.member_id, fact.key_hash, fact.invite_id),
    )


def invite_revoked(
    db: sqlite3.Connection, fact: facts.InviteRevoked, _sequence: int, _at: int
) -> None:
    """Make an unused invite worthless."""
    db.execute(
        "UPDATE invites SET state = 'revoked' WHERE invite_id = ? AND state = 'open'",
        (fact.invite_id,),
    )


def totp_step_used(
    db: sqlite3.Connection, fact: facts.TOTPStepUsed, _sequence: int, at: int
) -> None:
    """Burn a step; twice is a contradiction."""
    db.execute("INSERT INTO totp_steps VALUES (?, ?)", (fact.step, at))


def approval_requested(
    db: sqlite3.Connection, fact: facts.ApprovalRequested, sequence: int, at: int
) -> None:
    """Queue a join for a person."""
    db.execute(
        """INSERT INTO approvals (sequence, approval_id, host, sans, csr, key_hash, ticket_hash,
               method, source, words, addresses, mesh_port, enroll_port, expires_at, invite_id,
               requested_at)
           VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            sequence,
            fact.approval_id,
            fact.host,
            text(fact.sans),
            fact.csr,
            fact.key_hash,
            fact.ticket_hash,
            fact.method,
            fact.source,
            text(fact.words),
            text(fact.addresses),
            fact.mesh_port,
            fact.enroll_port,
            fact.expires_at,
            fact.invite_id,
            at,
        ),
    )


_DECIDE = """UPDATE approvals SET state = ?, operator = ?, reason = ?
             WHERE approval_id = ? AND state = 'pending'"""


def approval_granted(
    db: sqlite3.Connection, fact: facts.ApprovalGranted, _sequence: int, _at: int
) -> None:
    """Decide yes, unless decided before."""
    db.execute(_DECIDE, ("approved", fact.operator, "", fact.approval_id))


def approval_denied(
    db: sqlite3.Connection, fact: facts.ApprovalDenied, _sequence: int, _at: int
) -> None:
    """Decide no, unless decided before."""
    db.execute(_DECIDE, ("denied", fact.operator, fact.reason, fact.approval_id))


def approval_expired(
    db: sqlite3.Connection, fact: facts.ApprovalExpired, _sequence: int, _at: int
) -> None:
    """Close an undecided request."""
    db.execute(_DECIDE, ("expired", "", "", fact.approval_id))
