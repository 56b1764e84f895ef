"""Folds of the succession: who holds the issuing key, who writes, and what a person should look at.

A role is a register: its last writer by stamp has it. One member is the primary, the one that was
promoted last; whoever was promoted before is a standby.
"""

import sqlite3

from broker.ledger.texts import bundle_changed
from broker.ledger.where import Where
from broker.wire import facts
from broker.wire.ids import Role

_KEY_HOLDERS: frozenset[str] = frozenset({"primary", "standby"})

_APPOINT = """UPDATE members SET role = ?1, nominated = ?2, role_sequence = ?3, role_stamp = ?4
              WHERE member_id = ?5 AND role_stamp < ?4"""
# The first two conditions are those of the index `members_holding_keys`, literally.
_DEPOSE = """UPDATE members SET role = 'standby'
             WHERE state = 'active' AND role IN ('primary', 'standby')
                 AND role = 'primary' AND member_id <> ?"""


def standby_nominated(db: sqlite3.Connection, fact: facts.StandbyNominated, where: Where) -> None:
    """Offer the key: until the member has proved that it fits it is no key holder."""
    _appoint(db, fact.member_id, "member", where, nominated=True)


def standby_ready(db: sqlite3.Connection, fact: facts.StandbyReady, where: Where) -> None:
    """Count it among the key holders."""
    _appoint(db, fact.member_id, "standby", where)


def standby_removed(db: sqlite3.Connection, fact: facts.StandbyRemoved, where: Where) -> None:
    """Take the role or the nomination back."""
    _appoint(db, fact.member_id, "member", where)


def failover_promoted(db: sqlite3.Connection, fact: facts.FailoverPromoted, where: Where) -> None:
    """Make it the primary, unless somebody was promoted after it; depose all others."""
    _appoint(db, fact.member_id, "primary" if _is_last(db, where) else "standby", where)
    db.execute(
        "INSERT INTO promotions VALUES (?, ?, ?) ON CONFLICT (stamp) DO NOTHING",
        (where.stamp.text, where.sequence, fact.member_id),
    )
    if _is_last(db, where):
        db.execute(_DEPOSE, (fact.member_id,))
        bundle_changed(db, where.sequence)


def merge_conflict(db: sqlite3.Connection, fact: facts.MergeConflict, where: Where) -> None:
    """Put it on the list for a person, once: what was looked at stays so."""
    db.execute(
        """INSERT INTO reviews VALUES (?, ?, ?, ?, ?, ?, ?, 1)
           ON CONFLICT (review_id) DO NOTHING""",
        (
            fact.review_id,
            fact.rule,
            fact.subject,
            fact.kept,
            fact.lost,
            where.at,
            where.sequence,
        ),
    )


def merge_reviewed(db: sqlite3.Connection, fact: facts.MergeReviewed, _where: Where) -> None:
    """Take it off the list."""
    db.execute("UPDATE reviews SET open = 0 WHERE review_id = ?", (fact.review_id,))


def _is_last(db: sqlite3.Connection, where: Where) -> bool:
    (last,) = db.execute("SELECT max(stamp) FROM promotions").fetchone()
    return last is None or last <= where.stamp.text


def _appoint(
    db: sqlite3.Connection, member_id: str, role: Role, where: Where, *, nominated: bool = False
) -> None:
    found = db.execute("SELECT state, role FROM members WHERE member_id = ?", (member_id,))
    row = found.fetchone()
    if row is None and not where.adopted:
        raise sqlite3.IntegrityError("a role for nobody")
    written = db.execute(
        _APPOINT, (role, nominated, where.sequence, where.stamp.text, member_id)
    ).rowcount
    if written and row != ("active", role) and _KEY_HOLDERS & {row[1], role}:
        bundle_changed(db, where.sequence)
