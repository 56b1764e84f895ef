"""Reads of API tokens."""

from typing import Any

from broker.ledger.rows import TokenRow
from broker.ledger.store import Store
from broker.ledger.texts import strings
from broker.wire.codec import decode_fact
from broker.wire.facts import FactAdopted

_ROW = """SELECT t.token_id, t.name, t.scopes, t.expires_at, t.created_at, j.actor, j.payload,
        r.token_id IS NOT NULL FROM tokens t JOIN journal j ON j.sequence = t.sequence
    LEFT JOIN token_revocations r ON r.token_id = t.token_id"""


class TokenReads(Store):
    """Which programs may ask."""

    def token(self, token_id: str) -> TokenRow | None:
        """Return one token."""
        row = self._one(f"{_ROW} WHERE t.token_id = ?", (token_id,))
        return None if row is None else _token(row)

    def tokens(self, limit: int) -> list[TokenRow]:
        """Return the newest tokens, newest first, whatever became of them."""
        rows = self._all(f"{_ROW} ORDER BY t.sequence DESC LIMIT ?", (limit,))
        return [_token(row) for row in rows]

    def tokens_active(self, now: int) -> list[TokenRow]:
        """Return every token that is worth something at `now`, newest first."""
        statement = f"{_ROW} WHERE r.token_id IS NULL AND t.expires_at > ? ORDER BY t.sequence DESC"
        return [_token(row) for row in self._all(statement, (now,))]


def _token(row: tuple[Any, ...]) -> TokenRow:
    token_id, name, scopes, expires_at, created_at, actor, payload, revoked = row
    fact = decode_fact(payload)
    # An adopted row was written by whoever merged; who made the token stands inside.
    creator = fact.origin.actor if isinstance(fact, FactAdopted) else actor
    made = (expires_at, created_at, creator)
    return TokenRow(token_id, name, strings(scopes), *made, revoked=bool(revoked))
