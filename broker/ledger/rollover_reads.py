"""Reads of rollovers: the open one, and the CAs that were ever made for one."""

from typing import Any

from broker.ledger.rows import RolloverRow
from broker.ledger.store import Store

_ROLLOVER = """SELECT pin, phase, root, issuing, retiring_pin, retiring_root, retiring_issuing,
    nonce, ciphertext, root_crl, started_at, sequence, switched_sequence FROM rollovers"""
_OPEN = f"{_ROLLOVER} WHERE phase IN ('trusting', 'switched')"
_LATE = """SELECT m.host FROM members m WHERE m.state = 'active' AND m.current_sequence < ?
    AND m.not_after >= ? LIMIT 1"""


class RolloverReads(Store):
    """What replaces what, and how far it is."""

    def rollover(self) -> RolloverRow | None:
        """Return the open rollover."""
        return _rollover(self._one(_OPEN))

    def rollover_to(self, pin: str) -> RolloverRow | None:
        """Return the rollover that made the CA of this pin, in whatever phase."""
        return _rollover(self._one(f"{_ROLLOVER} WHERE pin = ?", (pin,)))

    def rollovers(self) -> list[RolloverRow]:
        """Return all of them, oldest first; a mesh has a handful in its life."""
        return [RolloverRow(*row) for row in self._all(f"{_ROLLOVER} ORDER BY sequence", ())]

    def certified_before(self, sequence: int, now: int) -> str:
        """Return a host whose valid certificate is older than this row; empty without one."""
        row = self._one(_LATE, (sequence, now))
        return "" if row is None else str(row[0])


def _rollover(row: tuple[Any, ...] | None) -> RolloverRow | None:
    return None if row is None else RolloverRow(*row)
