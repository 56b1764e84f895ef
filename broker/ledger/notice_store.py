"""What people know of, and the notices on their way to them: of this node alone, no history.

Two tables beside the journal. `troubles` has a row for each trouble that was found and is not over;
`notices` is the outbox. Both are written with the drain that decides about them.
"""

# ruff: noqa: S608 (statements are put together from names of this package, never from input)

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from broker.ledger.store import Store
from broker.units import UnixSeconds
from broker.wire.facts import CertificateServed, FactAdopted, FailoverPromoted, RenewalFailed
from broker.wire.ids import ServedState
from broker.wire.notice import Notice, NoticeEvent

_TROUBLE = "SELECT event, about, host, at, step, mark, detail, told FROM troubles"
_CASE = """SELECT member_id, host, state = 'active', current_serial, renew_at, not_after,
    last_error, served, served_detail, serving_until,
    served_serial NOT IN ('', current_serial) FROM members"""
_CASES = f"{_CASE} WHERE member_id IN (SELECT value FROM json_each(?))"
_OVERDUE = f"""{_CASE} INDEXED BY members_due
    WHERE state = 'active' AND renew_at <= ?1 AND renew_at >= ?2
        AND (renew_at, member_id) > (?2, ?3)
    ORDER BY renew_at, member_id LIMIT ?4"""
_ABOUT = f"{_TROUBLE} WHERE about IN (SELECT value FROM json_each(?))"
_TELLING = [
    kind.__struct_config__.tag
    for kind in (RenewalFailed, CertificateServed, FailoverPromoted, FactAdopted)
]
_NEWS = f"""SELECT sequence, term, iif(event IN ({", ".join(f"'{tag}'" for tag in _TELLING)}),
        payload, NULL)
    FROM journal WHERE sequence > ? ORDER BY sequence LIMIT ?"""
_PARCEL = "SELECT number, body, state, attempts, tries FROM notices"
_WAITING_APPROVALS = """SELECT approval_id, host, source, requested_at FROM approvals
    WHERE state = 'pending' AND requested_at <= ? ORDER BY expires_at LIMIT ?"""

_encode = msgspec.msgpack.Encoder().encode
_notice = msgspec.msgpack.Decoder(Notice)
_tries = msgspec.msgpack.Decoder(dict[str, tuple[int, str]])


class CaseRow(NamedTuple):
    """How it stands with one member's certificate."""

    member_id: str
    host: str
    active: bool
    serial: str
    renew_at: UnixSeconds | None
    not_after: UnixSeconds | None
    last_error: str
    served: ServedState
    served_detail: str
    ends_at: UnixSeconds | None
    behind: bool


class TroubleRow(NamedTuple):
    """A trouble that is remembered; see `broker.core.notices`."""

    event: NoticeEvent
    about: str
    host: str
    at: UnixSeconds
    step: int
    mark: str
    detail: str
    told: bool


class ParcelRow(NamedTuple):
    """A notice and, by target that has not taken it, how often it was tried and what went wrong."""

    number: int
    notice: Notice
    state: str
    attempts: int
    tries: Mapping[str, tuple[int, str]]


class NoticeStore(Store):
    """Reads and writes of the two tables, and the looks at the roster that feed them."""

    def cases(self, member_ids: Iterable[str]) -> list[CaseRow]:
        """Return how it stands with the certificates of these members."""
        wanted = msgspec.json.encode(list(member_ids)).decode()
        return [_case(row) for row in self._all(_CASES, (wanted,))]

    def overdue(self, now: int, after: tuple[int, str], limit: int) -> list[CaseRow]:
        """Return active members that are due, most overdue first.

        `after` is (renew_at, member id) of the last row of the page before.
        """
        return [_case(row) for row in self._all(_OVERDUE, (now, *after, limit))]

    def news(self, after: int, limit: int) -> list[tuple[int, int, bytes | None]]:
        """Return (sequence, term, payload) of the rows behind `after`.

        Only rows that can be the beginning of a trouble carry their payload.
        """
        return self._all(_NEWS, (after, limit))

    def approvals_since(self, then: int, limit: int) -> list[tuple[str, str, str, int]]:
        """Return (id, host, source, requested_at) of approvals that wait since `then` or longer."""
        return self._all(_WAITING_APPROVALS, (then, limit))

    def troubles_about(self, abouts: Iterable[str]) -> list[TroubleRow]:
        """Return what is remembered of these members, approvals or terms."""
        wanted = msgspec.json.encode(list(abouts)).decode()
        return [_trouble(row) for row in self._all(_ABOUT, (wanted,))]

    def troubles_page(self, after: tuple[str, str], limit: int) -> list[TroubleRow]:
        """Return troubles behind (about, event), in that order."""
        statement = f"{_TROUBLE} WHERE (about, event) > (?, ?) ORDER BY about, event LIMIT ?"
        return [_trouble(row) for row in self._all(statement, (*after, limit))]

    def untold(self, event: NoticeEvent, limit: int) -> list[TroubleRow]:
        """Return troubles of one kind that people do not know of, oldest first."""
        statement = f"{_TROUBLE} WHERE event = ? AND told = 0 ORDER BY at, host LIMIT ?"
        return [_trouble(row) for row in self._all(statement, (event, limit))]

    def untold_count(self, event: NoticeEvent) -> int:
        """Return how many of one kind people do not know of."""
        statement = "SELECT count(*) FROM troubles WHERE event = ? AND told = 0"
        return self._number(statement, (event,))

    def trouble_count(self, event: NoticeEvent) -> int:
        """Return how many of one kind are remembered."""
        return self._number("SELECT count(*) FROM troubles WHERE event = ?", (event,))

    def trouble_save(self, trouble: TroubleRow) -> None:
        """Remember a trouble, or what it has become."""
        with self._writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO troubles VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*trouble[:-1], int(trouble.told)),
            )

    def trouble_end(self, trouble: TroubleRow) -> None:
        """Forget a trouble."""
        with self._writing() as connection:
            connection.execute(
                "DELETE FROM troubles WHERE event = ? AND about = ?", (trouble.event, trouble.about)
            )

    def troubles_elsewhere(self, own: str) -> int:
        """Return how many troubles of others people do not know of."""
        statement = "SELECT count(*) FROM troubles WHERE told = 0 AND about <> ?"
        return self._number(statement, (own,))

    def troubles_end_elsewhere(self, own: str) -> None:
        """Forget troubles of others that people do not know of."""
        with self._writing() as connection:
            connection.execute("DELETE FROM troubles WHERE told = 0 AND about <> ?", (own,))

    def troubles_told(self, event: NoticeEvent) -> None:
        """Note that people know of every trouble of this kind."""
        with self._writing() as connection:
            connection.execute("UPDATE troubles SET told = 1 WHERE event = ?", (event,))

    def troubles_end(self, event: NoticeEvent) -> None:
        """Forget every trouble of this kind."""
        with self._writing() as connection:
            connection.execute("DELETE FROM troubles WHERE event = ?", (event,))

    def parcels_waiting(self) -> list[ParcelRow]:
        """Return the notices that somebody has not taken yet, oldest first."""
        rows = self._all(f"{_PARCEL} WHERE state = 'waiting' ORDER BY number")
        return [_parcel(row) for row in rows]

    def parcels(self, limit: int) -> list[ParcelRow]:
        """Return the newest notices, newest first."""
        rows = self._all(f"{_PARCEL} ORDER BY number DESC LIMIT ?", (limit,))
        return [_parcel(row) for row in rows]

    def parcel(self, notice_id: str) -> ParcelRow | None:
        """Return one notice."""
        row = self._one(f"{_PARCEL} WHERE notice_id = ?", (notice_id,))
        return None if row is None else _parcel(row)

    def parcel_post(self, notice: Notice, targets: Iterable[str]) -> None:
        """Put a notice into the outbox."""
        tries = _encode(dict.fromkeys(targets, (0, "")))
        with self._writing() as connection:
            connection.execute(
                """INSERT INTO notices (notice_id, body, state, attempts, tries)
                   VALUES (?, ?, 'waiting', 0, ?)""",
                (notice.notice_id, _encode(notice), tries),
            )

    def parcel_save(self, parcel: ParcelRow) -> None:
        """Write what became of a notice."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE notices SET state = ?, attempts = ?, tries = ? WHERE number = ?",
                (parcel.state, parcel.attempts, _encode(dict(parcel.tries)), parcel.number),
            )

    def parcels_trim(self, keep: int) -> list[ParcelRow]:
        """Forget all but `keep` notices, finished ones first; return those that still waited."""
        over = self._number("SELECT count(*) FROM notices") - keep
        if over <= 0:
            return []
        order = "ORDER BY state = 'waiting', number LIMIT ?"
        gone = [_parcel(row) for row in self._all(f"{_PARCEL} {order}", (over,))]
        with self._writing() as connection:
            connection.executemany(
                "DELETE FROM notices WHERE number = ?", [(parcel.number,) for parcel in gone]
            )
        return [parcel for parcel in gone if parcel.state == "waiting"]


def _case(row: tuple[Any, ...]) -> CaseRow:
    return CaseRow._make((*row[:2], bool(row[2]), *row[3:-1], bool(row[-1])))


def _trouble(row: tuple[Any, ...]) -> TroubleRow:
    return TroubleRow._make((*row[:7], bool(row[7])))


def _parcel(row: tuple[Any, ...]) -> ParcelRow:
    number, body, state, attempts, tries = row
    return ParcelRow(number, _notice.decode(body), state, attempts, _tries.decode(tries))
