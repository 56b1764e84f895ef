"""Folds of grants to renewal workers on other machines.

An enrolment only adds, so one made on the other side of a fork is taken over as it is. A revocation
is a row of its own and absorbs, also where it stands ahead of the enrolment. A grant is for one
key: bound to another on each side of a fork it is over, because nobody can say which of the two
was meant, and a person enrolls the machine again in a second.
"""

import sqlite3

from broker.ledger.texts import tolerant
from broker.ledger.where import Where
from broker.wire import facts

_ENROLL = """INSERT INTO worker_grants (sequence, grant_id, member_id, host, enrolled_at)
             VALUES (?, ?, ?, ?, ?)"""
_BIND = "INSERT INTO worker_keys (grant_id, public_key, sequence, stamp) VALUES (?, ?, ?, ?)"
_BOUND = "SELECT public_key FROM worker_keys WHERE grant_id = ?"
_END = "INSERT INTO worker_revocations VALUES (?, ?) ON CONFLICT (grant_id) DO NOTHING"


def worker_enrolled(db: sqlite3.Connection, fact: facts.WorkerEnrolled, where: Where) -> None:
    """Add a grant; the same id twice is a contradiction."""
    grant = (fact.grant_id, fact.member_id, fact.host, where.at)
    db.execute(tolerant(_ENROLL, where), (where.sequence, *grant))


def worker_bound(db: sqlite3.Connection, fact: facts.WorkerBound, where: Where) -> None:
    """Give a grant its key; a second one is a contradiction, or the end of both after a fork."""
    bound = (fact.grant_id, fact.public_key, where.sequence, where.stamp.text)
    db.execute(tolerant(_BIND, where), bound)
    (public_key,) = db.execute(_BOUND, (fact.grant_id,)).fetchone()
    if public_key != fact.public_key:
        db.execute(_END, (fact.grant_id, where.sequence))


def worker_revoked(db: sqlite3.Connection, fact: facts.WorkerRevoked, where: Where) -> None:
    """End a grant for ever, known here or not."""
    db.execute(_END, (fact.grant_id, where.sequence))
