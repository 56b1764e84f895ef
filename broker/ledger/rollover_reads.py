"""Reads of rollovers: the open one, and the CAs that were ever made for one."""

from typing import Any, NamedTuple

from broker.ledger.rows import RolloverRow
from broker.ledger.store import Store

_ROLLOVER = """SELECT pin, phase, root, issuing, retiring_pin, retiring_root, retiring_issuing,
    nonce, ciphertext, root_crl, started_at, sequence, switched_sequence FROM rollovers"""
_OPEN = f"{_ROLLOVER} WHERE phase IN ('trusting', 'switched')"
_LATE = """SELECT m.host FROM members m WHERE m.state = 'active' AND m.current_sequence < ?
    AND m.not_after >= ? LIMIT 1"""

# Compared where it lies, in the journal: making a certificate of each row costs ten times as much.
_SHOWN = """SELECT m.member_id, m.host, m.current_serial, m.served_serial,
        m.not_after >= ? AND instr(j.payload, ?) > 0
    FROM members m LEFT JOIN journal j ON j.sequence = m.current_sequence
    WHERE m.state = 'active' AND m.host > ? ORDER BY m.host LIMIT ?"""


class Shown(NamedTuple):
    """What an active member shows; `is_old`: its current certificate is of the CA asked about."""

    member_id: str
    host: str
    serial: str
    served_serial: str
    is_old: bool


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

    def shown(self, key_id: bytes, now: int, after: str, limit: int) -> list[Shown]:
        """Return active members in host order, and who has a valid certificate of one CA.

        Args:
            key_id: Key identifier of its issuing certificate, which stands in all it signed.
            now: Wall time.
            after: The host to begin behind.
            limit: How many; negative for all, which takes a microsecond or two each.
        """
        rows = self._all(_SHOWN, (now, key_id, after, limit))
        return [Shown(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows]

    def certified_before(self, sequence: int, now: int) -> str:
        """Return a host whose valid certificate is older than this row; empty without one."""
        row = self._one(_LATE, (sequence, now))
        return "" if row is None else str(row[0])


def _rollover(row: tuple[Any, ...] | None) -> RolloverRow | None:
    return None if row is None else RolloverRow(*row)
