"""Reads of grants to renewal workers on other machines.

A grant is over when it was revoked, or when its member is no active one any more; a member that
comes back is another enrollment and needs another grant.
"""

from typing import Any

from broker.ledger.rows import WorkerRow
from broker.ledger.store import Store
from broker.units import UnixSeconds
from broker.wire.codec import decode_fact
from broker.wire.facts import FactAdopted

_ROW = """SELECT g.grant_id, g.member_id, coalesce(m.host, g.host), g.enrolled_at, j.actor,
        j.payload, coalesce(k.public_key, ''), r.grant_id IS NOT NULL OR m.state IS NOT 'active'
    FROM worker_grants g JOIN journal j ON j.sequence = g.sequence
    LEFT JOIN members m ON m.member_id = g.member_id
    LEFT JOIN worker_keys k ON k.grant_id = g.grant_id
    LEFT JOIN worker_revocations r ON r.grant_id = g.grant_id"""
_LIVE = "r.grant_id IS NULL AND m.state = 'active'"
_BY_KEY = f"{_ROW} WHERE k.public_key = ? AND {_LIVE} ORDER BY k.stamp LIMIT 1"
_OF_MEMBER = f"{_ROW} WHERE g.member_id = ? AND {_LIVE} ORDER BY g.sequence DESC"
_NEWEST = f"{_ROW} ORDER BY g.sequence DESC LIMIT ?"
_USED = "SELECT count(*) FROM worker_keys WHERE public_key = ?"


class WorkerReads(Store):
    """Which other machines may work for this CA."""

    def worker_by_key(self, public_key: str) -> WorkerRow | None:
        """Return the living grant of that CURVE key; of two after a fork, the one bound first."""
        row = self._one(_BY_KEY, (public_key,))
        return None if row is None else _worker(row)

    def workers_of(self, member_id: str) -> list[WorkerRow]:
        """Return a member's living grants, newest first: two when a fork made two."""
        return [_worker(row) for row in self._all(_OF_MEMBER, (member_id,))]

    def workers(self, limit: int) -> list[WorkerRow]:
        """Return the newest grants, newest first, whatever became of them."""
        return [_worker(row) for row in self._all(_NEWEST, (limit,))]

    def worker_key_used(self, public_key: str) -> bool:
        """Return whether any grant ever had that key, one that is over included."""
        return self._number(_USED, (public_key,)) > 0


def _worker(row: tuple[Any, ...]) -> WorkerRow:
    grant_id, member_id, host, enrolled_at, actor, payload, public_key, over = row
    fact = decode_fact(payload)
    # An adopted row was written by whoever merged; who enrolled the machine stands inside.
    enrolled_by = fact.origin.actor if isinstance(fact, FactAdopted) else actor
    return WorkerRow(
        grant_id=grant_id,
        member_id=member_id,
        host=host,
        public_key=public_key,
        enrolled_at=UnixSeconds(enrolled_at),
        enrolled_by=enrolled_by,
        over=bool(over),
    )
