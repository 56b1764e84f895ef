"""The audit trail as a whole: the chain, and who was found to remember it differently."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from broker.ledger.file import connect, opening_trouble
from broker.ledger.journal import ChainVerdict, check_chain
from broker.ledger.where import fact_in
from broker.wire.facts import AuditBroken

BROKEN_MAX = 1000
_BROKEN = """SELECT payload FROM journal WHERE event = 'audit.broken'
    ORDER BY sequence DESC LIMIT ?"""


@dataclass(frozen=True, slots=True)
class Trail:
    """The verdict on the chain, and the hosts that contradicted it at any time."""

    chain: ChainVerdict
    broken: tuple[str, ...]


def inspect_trail(path: Path) -> Trail:
    """Return what the journal at `path` is worth, over a connection of its own.

    Sees committed rows only, changes nothing, and may run beside the broker. Reads every row.

    Raises:
        LedgerDamagedError: The file is no ledger at all.
    """
    try:
        with closing(connect(path)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            chain = check_chain(connection)
            rows = connection.execute(_BROKEN, (BROKEN_MAX,)).fetchall()
    except sqlite3.Error as error:
        raise opening_trouble(path, error) from error
    if chain.first_bad is not None:
        return Trail(chain, ())  # what a broken chain says of others proves nothing
    found = (fact_in(payload) for (payload,) in rows)
    hosts = {fact.host for fact in found if isinstance(fact, AuditBroken)}
    return Trail(chain, tuple(sorted(hosts)))
