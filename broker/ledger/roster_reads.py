"""Reads of the roster: members, certificates, due dates, revocations.

Every query walks an index and stops; none counts or sorts a table, so the cost does not grow with
the mesh. A partial index is used only when the query repeats its condition literally.
"""

# ruff: noqa: S608 (statements are put together from column lists of this module, never from input)

import hashlib
from typing import Any

from broker.ledger.name_reads import NameReads
from broker.ledger.rows import CertificateRow, MemberRow
from broker.ledger.texts import endpoint, strings
from broker.ledger.where import fact_in
from broker.wire.facts import CertificateIssued, CertificateRenewed

KEYS_LOOKED_AT = 64
"""How far back a key is recognised: retries repeat a recent one, older reuse is a new request."""

_MEMBER = """m.member_id, m.host, m.state, m.role, m.sans, m.endpoint, m.joined_at, m.method,
    m.current_serial, m.revoked_at, m.served, m.served_serial, m.served_detail, m.last_error,
    m.nominated, m.served_at, m.serving_until"""
_MEMBER_WIDTH = 17

_CERTIFICATE = """c.serial, c.member_id, m.host, c.key_hash, c.not_before, c.not_after, c.renew_at,
    CASE WHEN m.state = 'revoked' THEN 'revoked'
         WHEN c.serial = m.current_serial THEN 'active' ELSE 'superseded' END, j.payload"""
_JOIN = """certificates c JOIN members m ON m.member_id = c.member_id
    JOIN journal j ON j.sequence = c.sequence"""
CURRENT = """LEFT JOIN certificates c ON c.sequence = m.current_sequence
    LEFT JOIN journal j ON j.sequence = c.sequence"""
PAIR = f"{_MEMBER}, {_CERTIFICATE}"
"""Columns of a member `m` and a certificate `c` with its row `j`, as `pair_of` reads them."""

_OF_HOST = f"SELECT {_MEMBER} FROM members m WHERE m.host = ?"
_ACTIVE_OF_HOST = f"{_OF_HOST} AND m.state = 'active' ORDER BY m.stamp LIMIT 1"
# Who got the name last, by joining or by a renaming: `max` picks its row without a sort.
_LATEST_OF_HOST = f"""SELECT {_MEMBER} FROM members m WHERE m.member_id = (
    SELECT last.member_id FROM (
        SELECT n.member_id, max(max(n.sequence, n.name_sequence)) FROM members n WHERE n.host = ?
    ) AS last)"""
_BY_ID = f"SELECT {_MEMBER} FROM members m WHERE m.member_id = ?"
_BY_SERIAL = f"SELECT {_MEMBER}, {_CERTIFICATE} FROM {_JOIN} WHERE c.serial = ?"
# A member's certificates are a list from its current one back.
_OF_MEMBER = f"""WITH RECURSIVE held (sequence, place) AS (
        SELECT current_sequence, 0 FROM members WHERE member_id = ?1 UNION ALL
        SELECT p.previous, held.place + 1 FROM held
        JOIN certificates p ON p.sequence = held.sequence LIMIT ?2)
    SELECT {_CERTIFICATE} FROM held CROSS JOIN {_JOIN} WHERE c.sequence = held.sequence"""
_NEWEST_FIRST = f"{_OF_MEMBER} ORDER BY held.place"

# One line per host: its oldest active enrollment (which owns the name), else who got it last.
_PAGE = f"""SELECT {_MEMBER}, {_CERTIFICATE} FROM members m INDEXED BY members_by_host {CURRENT}
    WHERE m.host > ? AND NOT EXISTS (
        SELECT 1 FROM members n WHERE n.host = m.host AND n.member_id <> m.member_id AND iif(
            m.state = 'active', n.state = 'active' AND n.stamp < m.stamp,
            n.state = 'active'
                OR max(n.sequence, n.name_sequence) > max(m.sequence, m.name_sequence)))
    ORDER BY m.host LIMIT ?"""
_DUE = f"""SELECT {_MEMBER}, {_CERTIFICATE} FROM members m INDEXED BY members_due {CURRENT}
    WHERE m.state = 'active' AND m.renew_at <= ?1 AND m.renew_at >= ?3
        AND (m.renew_at, m.member_id) > (?3, ?4)
    ORDER BY m.renew_at, m.member_id LIMIT ?2"""
_NAMES = """SELECT member_id, host, sans, state = 'active' FROM members
    WHERE member_id > ? ORDER BY member_id LIMIT ?"""
_NEXT_RENEWAL = """SELECT min(m.renew_at) FROM members m INDEXED BY members_due
    WHERE m.state = 'active'"""
_NEXT_RENEWAL_AFTER = f"{_NEXT_RENEWAL} AND m.renew_at > ?"
_KEY_HOLDERS = f"""SELECT {_MEMBER} FROM members m INDEXED BY members_holding_keys
    WHERE m.state = 'active' AND m.role IN ('primary', 'standby') ORDER BY m.sequence"""
_NOMINATED = f"""SELECT {_MEMBER} FROM members m INDEXED BY members_nominated
    WHERE m.state = 'active' AND m.nominated = 1 ORDER BY m.sequence"""
_REVOKED_SERIALS = """WITH RECURSIVE held (sequence, revoked_at) AS (
        SELECT m.current_sequence, m.revoked_at FROM members m INDEXED BY members_revoked
        WHERE m.state = 'revoked' AND m.last_not_after >= ?1 UNION ALL
        SELECT p.previous, held.revoked_at FROM held
        JOIN certificates p ON p.sequence = held.sequence)
    SELECT c.serial, held.revoked_at FROM held JOIN certificates c ON c.sequence = held.sequence
    WHERE c.not_after >= ?1 ORDER BY c.sequence"""
_ACTIVE = "SELECT member_id, host FROM members WHERE state = 'active' ORDER BY host"
_REVOCATION = """SELECT j.term, r.sequence FROM revocations r JOIN journal j
    ON j.sequence = r.sequence WHERE r.member_id = ?"""
_BY_KEY = f"{_OF_MEMBER} AND c.key_hash = ?3 ORDER BY held.place LIMIT 1"

PartialIndexed = (
    _DUE,
    _NEXT_RENEWAL,
    _NEXT_RENEWAL_AFTER,
    _KEY_HOLDERS,
    _NOMINATED,
    _REVOKED_SERIALS,
)
"""Queries that `INDEXED BY` pins to a partial index: SQLite refuses them if it cannot be used."""


class RosterReads(NameReads):
    """Who belongs to the mesh, and with which certificates."""

    def member_by_host(self, host: str) -> MemberRow | None:
        """Return the active member of that name; of two, the older, which owns the name."""
        return _member_or_none(self._one(_ACTIVE_OF_HOST, (host,)))

    def latest_member_of_host(self, host: str) -> MemberRow | None:
        """Return the newest enrollment of that name, in whatever state."""
        return _member_or_none(self._one(_LATEST_OF_HOST, (host,)))

    def member(self, member_id: str) -> MemberRow | None:
        """Return one enrollment."""
        return _member_or_none(self._one(_BY_ID, (member_id,)))

    def members_page(self, after: str, limit: int) -> list[tuple[MemberRow, CertificateRow | None]]:
        """Return one line per host after `after`, in host order, with its current certificate."""
        return [pair_of(row) for row in self._all(_PAGE, (after, limit))]

    def names_page(self, after: str, limit: int) -> list[tuple[str, str, tuple[str, ...], bool]]:
        """Return (member id, host, SANs, whether active) of `limit` enrollments behind `after`.

        In the order of ids, revoked ones included: so a page costs the same wherever it begins.
        """
        rows = self._all(_NAMES, (after, limit))
        return [(row[0], row[1], strings(row[2]), bool(row[3])) for row in rows]

    def member_count(self) -> int:
        """Return the number of active members."""
        return self._number("SELECT members_active FROM totals WHERE id = 1")

    def key_holders(self) -> list[MemberRow]:
        """Return active members that are primary or standby, oldest first."""
        return [_member(row) for row in self._all(_KEY_HOLDERS)]

    def nominated(self) -> list[MemberRow]:
        """Return active members that are offered the issuing key and do not hold it yet."""
        return [_member(row) for row in self._all(_NOMINATED)]

    def certificate(self, serial: str) -> tuple[MemberRow, CertificateRow] | None:
        """Return the certificate of that serial and the member it was issued to."""
        row = self._one(_BY_SERIAL, (serial,))
        return None if row is None else (_member(row), _certificate(row[_MEMBER_WIDTH:]))

    def certificates_of(self, member_id: str, limit: int) -> list[CertificateRow]:
        """Return a member's certificates, newest first.

        Of certificates that came home after a fork only the current one has its place by age.
        """
        return [_certificate(row) for row in self._all(_NEWEST_FIRST, (member_id, limit))]

    def certificate_by_key(self, member_id: str, key_hash: str) -> CertificateRow | None:
        """Return the newest certificate for that key among the member's last `KEYS_LOOKED_AT`."""
        row = self._one(_BY_KEY, (member_id, KEYS_LOOKED_AT, key_hash))
        return None if row is None else _certificate(row)

    def due(
        self, now: int, limit: int, after: tuple[int, str] = (-1, "")
    ) -> list[tuple[MemberRow, CertificateRow]]:
        """Return active members whose current certificate should be renewed, most overdue first.

        `after` is (renew_at, member_id) of the last row of the page before.
        """
        rows = self._all(_DUE, (now, limit, *after))
        return [(_member(row), _certificate(row[_MEMBER_WIDTH:])) for row in rows]

    def next_renew_at(self) -> int | None:
        """Return when the next active member falls due."""
        return self._minimum(_NEXT_RENEWAL)

    def next_renew_after(self, now: int) -> int | None:
        """Return when the next active member falls due that is not due at `now`."""
        return self._minimum(_NEXT_RENEWAL_AFTER, now)

    def revoked_serials(self, now: int) -> list[tuple[str, int]]:
        """Return (serial, revoked_at) of revoked members' certificates that still run at `now`."""
        return [(row[0], row[1]) for row in self._all(_REVOKED_SERIALS, (now,))]

    def revoked_members(self) -> list[str]:
        """Return the ids of all revoked members, in the order of revocation."""
        return [row[0] for row in self._all("SELECT member_id FROM revocations ORDER BY sequence")]

    def active_members(self) -> list[tuple[str, str]]:
        """Return (member_id, host) of all active members by host.

        Reads the whole table, half a microsecond a member: for a question that a person asked.
        """
        return [(row[0], row[1]) for row in self._all(_ACTIVE)]

    def revoked_by(self, member_id: str) -> tuple[int, int] | None:
        """Return (term, sequence) of the row that revoked a member here, None while it is active.

        Of an adopted revocation it is the row that brought it home: no older bundle has it.
        """
        row = self._one(_REVOCATION, (member_id,))
        return None if row is None else (int(row[0]), int(row[1]))

    def bundle_sequence(self) -> int:
        """Return the newest row that changed what the signed bundle says; 0 before the first."""
        return self._number("SELECT bundle_sequence FROM totals WHERE id = 1")

    def _minimum(self, statement: str, *parameters: int) -> int | None:
        row = self._one(statement, parameters)
        return None if row is None or row[0] is None else int(row[0])


def _member(row: tuple[Any, ...]) -> MemberRow:
    lists = (strings(row[4]), endpoint(row[5]))
    values = (*row[:4], *lists, *row[6:14], bool(row[14]), *row[15:_MEMBER_WIDTH])
    return MemberRow(*values)


def _member_or_none(row: tuple[Any, ...] | None) -> MemberRow | None:
    return None if row is None else _member(row)


def _certificate(row: tuple[Any, ...]) -> CertificateRow:
    fact = fact_in(row[8])
    assert isinstance(fact, CertificateIssued | CertificateRenewed)
    der = fact.certificate
    values = (*row[:8], der, hashlib.sha256(der).hexdigest())
    return CertificateRow(*values)


def pair_of(row: tuple[Any, ...]) -> tuple[MemberRow, CertificateRow | None]:
    """Return what the columns of `PAIR` say."""
    held = row[_MEMBER_WIDTH:]
    return _member(row), None if held[0] is None else _certificate(held)
