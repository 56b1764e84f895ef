"""Folds of the door: mesh settings, invites, TOTP steps, approvals.

The oldest redeemer keeps an invite, the oldest spender a TOTP step; the first decision keeps an
approval, a join settles it; the last writer has the enrollment window. "Old" is by stamp.
"""

import sqlite3

from broker.ledger.texts import bundle_changed, text, tolerant
from broker.ledger.where import Where
from broker.wire import facts
from broker.wire.policy import Policy


def mesh_created(db: sqlite3.Connection, fact: facts.MeshCreated, where: Where) -> None:
    """Record the mesh; a second one is a contradiction."""
    db.execute(
        """INSERT INTO mesh (id, mesh_id, name, domain, pin, enrollment_open, policy, created_at,
               enrollment_sequence, enrollment_stamp, policy_stamp, recovery_key)
           VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            fact.mesh_id,
            fact.name,
            fact.domain,
            fact.pin,
            fact.enrollment_open,
            text(policy_of(fact)),
            where.at,
            where.sequence,
            where.stamp.text,
            where.stamp.text,
            fact.recovery_key,
        ),
    )
    bundle_changed(db, where.sequence)


def policy_of(fact: facts.MeshCreated) -> Policy:
    """Return the first policy of a mesh; the oldest rows name only a part of it."""
    if fact.policy is not None:
        return fact.policy
    return Policy(names=fact.names, networks=fact.networks, approval=fact.approval)


def policy_changed(db: sqlite3.Connection, fact: facts.PolicyChanged, where: Where) -> None:
    """Follow the last writer."""
    db.execute(
        """UPDATE mesh SET policy = ?1, policy_stamp = ?2, policy_sequence = ?3
           WHERE id = 1 AND policy_stamp < ?2""",
        (text(fact.policy), where.stamp.text, where.sequence),
    )


def totp_rotated(db: sqlite3.Connection, fact: facts.TOTPRotated, where: Where) -> None:
    """Keep the sealed enrollment secret of the last writer."""
    db.execute(
        """UPDATE mesh SET totp_nonce = ?1, totp_ciphertext = ?2, totp_stamp = ?3,
               totp_sequence = ?4
           WHERE id = 1 AND totp_stamp < ?3""",
        (fact.nonce, fact.ciphertext, where.stamp.text, where.sequence),
    )


def enrollment_opened(db: sqlite3.Connection, _fact: facts.EnrollmentOpened, where: Where) -> None:
    """Let strangers with a code ask."""
    _set_window(db, where, is_open=True)


def enrollment_closed(db: sqlite3.Connection, _fact: facts.EnrollmentClosed, where: Where) -> None:
    """Turn strangers away."""
    _set_window(db, where, is_open=False)


def _set_window(db: sqlite3.Connection, where: Where, *, is_open: bool) -> None:
    db.execute(
        """UPDATE mesh SET enrollment_open = ?1, enrollment_sequence = ?2, enrollment_stamp = ?3
           WHERE id = 1 AND enrollment_stamp < ?3""",
        (is_open, where.sequence, where.stamp.text),
    )


_INVITE = """INSERT INTO invites (sequence, invite_id, host, sans, expires_at, created_at, term,
                 rejoin)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""


def invite_created(db: sqlite3.Connection, fact: facts.InviteCreated, where: Where) -> None:
    """Add an open invite, bound to the term that minted it."""
    invite = (fact.invite_id, fact.host, text(fact.sans), fact.expires_at, where.at, where.term)
    db.execute(tolerant(_INVITE, where), (where.sequence, *invite, fact.rejoin))


def invite_used(db: sqlite3.Connection, fact: facts.InviteUsed, where: Where) -> None:
    """Give the invite to its oldest redeemer, for ever."""
    db.execute(
        """UPDATE invites SET state = 'used', member_id = ?1, key_hash = ?2, used_sequence = ?3,
               used_stamp = ?4
           WHERE invite_id = ?5 AND (state <> 'used' OR used_stamp > ?4)""",
        (fact.member_id, fact.key_hash, where.sequence, where.stamp.text, fact.invite_id),
    )


def invite_revoked(db: sqlite3.Connection, fact: facts.InviteRevoked, _where: Where) -> None:
    """Make an unused invite worthless."""
    db.execute(
        "UPDATE invites SET state = 'revoked' WHERE invite_id = ? AND state = 'open'",
        (fact.invite_id,),
    )


_SPEND = "INSERT INTO totp_steps (step, at, sequence, stamp, key_hash) VALUES (?, ?, ?, ?, ?)"
_SPENT = "SELECT stamp, sequence, key_hash FROM totp_steps WHERE step = ?"
_LOSE = """INSERT INTO totp_losers (step, stamp, sequence, key_hash) VALUES (?, ?, ?, ?)
           ON CONFLICT (step, stamp) DO NOTHING"""


def totp_step_used(db: sqlite3.Connection, fact: facts.TOTPStepUsed, where: Where) -> None:
    """Burn a step; twice is a contradiction, or the loser's bad luck if it happened elsewhere."""
    mine = (where.stamp.text, where.sequence, fact.key_hash)
    before = db.execute(_SPENT, (fact.step,)).fetchone() if where.adopted else None
    if before is None:
        stamp, sequence, key_hash = mine
        db.execute(_SPEND, (fact.step, where.at, sequence, stamp, key_hash))
        return
    if before[0] == mine[0]:
        return
    older, younger = sorted((before, mine))
    db.execute(_LOSE, (fact.step, *younger))
    if older is mine:
        db.execute(
            """UPDATE totp_steps SET stamp = ?, sequence = ?, key_hash = ?, at = ?
               WHERE step = ?""",
            (*mine, where.at, fact.step),
        )


_ASK = """INSERT INTO approvals (sequence, approval_id, host, sans, csr, key_hash, ticket_hash,
              method, source, words, addresses, mesh_port, enroll_port, expires_at, invite_id,
              requested_at, replaces, note)
          VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


def approval_requested(db: sqlite3.Connection, fact: facts.ApprovalRequested, where: Where) -> None:
    """Queue a join for a person."""
    db.execute(
        tolerant(_ASK, where),
        (
            where.sequence,
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
            where.at,
            fact.replaces,
            fact.note,
        ),
    )


# A decision of the other side counts if it was made first, as long as nobody joined on the other.
_DECIDE = """UPDATE approvals SET state = ?1, operator = ?2, reason = ?3, decided_stamp = ?4
             WHERE approval_id = ?5 AND state <> 'issued'
                 AND (state = 'pending' OR decided_stamp > ?4)"""


def approval_granted(db: sqlite3.Connection, fact: facts.ApprovalGranted, where: Where) -> None:
    """Decide yes, unless decided before."""
    db.execute(
        _DECIDE, ("approved", fact.operator, fact.reason, where.stamp.text, fact.approval_id)
    )


def approval_denied(db: sqlite3.Connection, fact: facts.ApprovalDenied, where: Where) -> None:
    """Decide no, unless decided before."""
    db.execute(_DECIDE, ("denied", fact.operator, fact.reason, where.stamp.text, fact.approval_id))


def approval_expired(db: sqlite3.Connection, fact: facts.ApprovalExpired, where: Where) -> None:
    """Close an undecided request."""
    db.execute(_DECIDE, ("expired", "", "", where.stamp.text, fact.approval_id))
