"""How lists and endpoints are kept in a column: compact JSON, readable in any SQLite shell.

And the statements that several folds share.
"""

import sqlite3

import msgspec

from broker.ledger.where import Where
from broker.wire.node import Endpoint
from broker.wire.policy import Policy

_encoder = msgspec.json.Encoder()
_endpoints: msgspec.json.Decoder[Endpoint] = msgspec.json.Decoder(Endpoint)
_lists: msgspec.json.Decoder[tuple[str, ...]] = msgspec.json.Decoder(tuple[str, ...])


def text(value: tuple[str, ...] | Endpoint | Policy) -> str:
    """Return `value` as it stands in a column."""
    return _encoder.encode(value).decode()


def strings(column: str) -> tuple[str, ...]:
    """Return the list in a column."""
    return _lists.decode(column)


def endpoint(column: str) -> Endpoint:
    """Return the endpoint in a column."""
    return _endpoints.decode(column)


def bundle_changed(connection: sqlite3.Connection, sequence: int) -> None:
    """Note that the row `sequence` changed what the signed bundle says."""
    connection.execute("UPDATE totals SET bundle_sequence = ? WHERE id = 1", (sequence,))


def tolerant(insert: str, where: Where) -> str:
    """Return `insert` so that an adopted fact leaves alone what is there already."""
    return f"{insert} ON CONFLICT DO NOTHING" if where.adopted else insert
