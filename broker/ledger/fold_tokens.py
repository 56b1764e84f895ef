"""Folds of API tokens: who a program may be, and for how long.

Making a token only adds, so one made on the other side of a fork is taken over as it is. A
revocation is a row of its own and absorbs, also where it stands ahead of the token.
"""

import sqlite3

from broker.ledger.texts import text, tolerant
from broker.ledger.where import Where
from broker.wire import facts

_MADE = """INSERT INTO tokens (sequence, token_id, name, scopes, expires_at, created_at)
           VALUES (?, ?, ?, ?, ?, ?)"""


def token_made(db: sqlite3.Connection, fact: facts.TokenMade, where: Where) -> None:
    """Add a token; the same secret twice is a contradiction."""
    token = (fact.token_id, fact.name, text(fact.scopes), fact.expires_at, where.at)
    db.execute(tolerant(_MADE, where), (where.sequence, *token))


def token_revoked(db: sqlite3.Connection, fact: facts.TokenRevoked, where: Where) -> None:
    """Make a token worthless for ever, known here or not."""
    db.execute(
        "INSERT INTO token_revocations VALUES (?, ?) ON CONFLICT (token_id) DO NOTHING",
        (fact.token_id, where.sequence),
    )
