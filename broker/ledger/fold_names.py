"""Folds of names: a member's new name, and the bar on the name of somebody who was revoked.

The last writer has a member's name. A bar stands while the newest revocation by a person is newer
than the newest word that lifted it; "new" is by stamp, so both sides of a fork read the same,
whichever fact came first.
"""

import sqlite3

from broker.ledger.texts import bundle_changed, text
from broker.ledger.where import Where
from broker.wire import facts

BARRING = "revoked"
"""The cause that bars a name; who left or came back with a new identity bars nothing."""

# Addresses belong to the last move and names to the last renaming, whichever of the two is newer.
_RENAME = """UPDATE members SET host = ?1, sans = ?2, name_stamp = ?3, name_sequence = ?4,
                 endpoint = json_set(endpoint, '$.host', ?1, '$.server_name', ?5)
             WHERE member_id = ?6 AND name_stamp < ?3 RETURNING state, role"""
_BAR = """INSERT INTO bars (member_id, sequence, at, reason, stamp) VALUES (?, ?, ?, ?, ?)
          ON CONFLICT (member_id) DO UPDATE
              SET sequence = excluded.sequence, at = excluded.at, reason = excluded.reason,
                  stamp = excluded.stamp
              WHERE stamp < excluded.stamp"""
_LIFT = """INSERT INTO bars (member_id, lifted) VALUES (?, ?)
           ON CONFLICT (member_id) DO UPDATE SET lifted = max(lifted, excluded.lifted)"""


def member_renamed(db: sqlite3.Connection, fact: facts.MemberRenamed, where: Where) -> None:
    """Give the same identity another name."""
    named = (fact.host, text(fact.sans), where.stamp.text, where.sequence)
    renamed = db.execute(_RENAME, (*named, fact.endpoint.server_name, fact.member_id)).fetchall()
    if renamed in ([("active", "primary")], [("active", "standby")]):
        bundle_changed(db, where.sequence)


def bar_name(db: sqlite3.Connection, fact: facts.MemberRevoked, where: Where) -> None:
    """Bar the name of a member that was revoked; of two revocations the newer one bars."""
    if fact.cause == BARRING:
        stamp = where.stamp.text
        db.execute(_BAR, (fact.member_id, where.sequence, where.at, fact.reason, stamp))


def member_reinstated(db: sqlite3.Connection, fact: facts.MemberReinstated, where: Where) -> None:
    """Free the name from every revocation before this; the identity stays revoked."""
    db.execute(_LIFT, (fact.member_id, where.stamp.text))
