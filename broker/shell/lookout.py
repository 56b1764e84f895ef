"""Finds what people should hear of: a bounded look at the roster once a second.

On the serving primary four things lead to a member worth a look: a journal row about a failure, an
overdue certificate (walked by due date, a page at a time), a trouble that is remembered, and, for
joins, the requests that wait. Any other node looks at itself alone. Whether there is a trouble is
always read from the state of things, never from what led there, so nothing is lost or told twice
when the broker dies between two lines.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from broker.core.notices import (
    DETAIL_LENGTH_MAX,
    REPAIRABLE,
    Case,
    Trouble,
    compare,
    plain,
    troubles_of,
)
from broker.ledger.notice_store import CaseRow, TroubleRow
from broker.ledger.sqlite import Ledger
from broker.ledger.where import fact_in
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.outbox import is_wanted
from broker.shell.state import BrokerState
from broker.shell.worklist import own_due_at
from broker.units import UnixSeconds
from broker.wire.facts import CertificateServed, FailoverPromoted, RenewalFailed
from broker.wire.notice import NoticeEvent

LOCAL_READ_TO = "notices.read_to"
NEWS_ROWS = 2_000
"""Journal rows read in one look, most of them without their payload."""
NEWS_MEMBERS = 128
"""Members that one look goes into because of such rows; the rest is for the next look."""
REIGN_ROWS = 10_000
"""How far back a new primary looks: the one before it may have died before it told."""
PAGE = 64
"""Bounds one look at a few milliseconds; pages go round, one a second."""
KIND_MAX = 1_024
"""Troubles remembered of one kind. More of them are one disaster, and people know of it."""
APPROVAL_SETTLES_S = 2
"""A decider that is a program answers within this; nobody needs to be called for it."""

_LOUD: dict[NoticeEvent, EventName] = {
    "member.expiring": EventName.CERTIFICATE_EXPIRING,
    "member.expired": EventName.CERTIFICATE_EXPIRED,
}


def look(state: BrokerState, batch: Batch, now: UnixSeconds) -> None:
    """Compare what is remembered with what is, within bounds."""
    if state.membership is None:
        return
    if not state.serves:
        state.notices.read_to = None
        _leave_others_alone(batch, state.ledger, state.membership.member_id)
        _look_at_self(state, batch, now)
        return
    failed = _from_journal(state, batch, now)
    cases = {row.member_id: row for row in _overdue(state, now)}
    others = ({*failed} | _remembered(state, batch)) - {*cases}
    cases |= {row.member_id: row for row in state.ledger.cases(others)} if others else {}
    _forget(state, batch, others - {*cases})
    scene = _scene(state, cases, now)
    for member_id, row in cases.items():
        _settle(batch, scene, Case(*row), failed.get(member_id, ""))
    _approvals(state, batch, now)


@dataclass(slots=True)
class Scene:
    """What one look needs to know of all that it looks at."""

    now: UnixSeconds
    known: dict[str, dict[NoticeEvent, Trouble]]
    room: dict[NoticeEvent, int]
    tells_of_recovery: bool


def _scene(state: BrokerState, abouts: Iterable[str], now: UnixSeconds) -> Scene:
    ledger = state.ledger
    known: dict[str, dict[NoticeEvent, Trouble]] = {}
    for row in ledger.troubles_about(abouts):
        if row.event in REPAIRABLE:
            known.setdefault(row.about, {})[row.event] = Trouble(*row)
    room = {event: KIND_MAX - ledger.trouble_count(event) for event in REPAIRABLE}
    return Scene(now, known, room, is_wanted(state, "renewal.recovered"))


def _leave_others_alone(batch: Batch, ledger: Ledger, own: str) -> None:
    """Forget what this node, as the primary, had not told: it is the next one's to find."""
    if ledger.troubles_elsewhere(own):
        batch.beside(lambda ledger: ledger.troubles_end_elsewhere(own))
        # A hand-over that fails leaves this node in its reign: it has to find them once more.
        batch.keep(LOCAL_READ_TO, b"")


def _look_at_self(state: BrokerState, batch: Batch, now: UnixSeconds) -> None:
    own, membership = state.own, state.membership
    if membership is None or not own.known:
        return
    case = Case(
        member_id=membership.member_id,
        host=state.host,
        active=True,
        serial=own.serial,
        renew_at=own_due_at(state),
        not_after=own.not_after if own.present else None,
        last_error=state.own_failure,
        served=own.state,
        served_detail=own.detail,
        ends_at=own.serving_until,
    )
    _settle(batch, _scene(state, [case.member_id], now), case, "")


def _from_journal(state: BrokerState, batch: Batch, now: UnixSeconds) -> dict[str, str]:
    """Return the members that new rows speak of, and why their renewal failed if it did.

    A promotion is noted on the way.
    """
    book, ledger = state.notices, state.ledger
    start = book.read_to if book.read_to is not None else _begin(ledger)
    rows = ledger.news(start, NEWS_ROWS)
    found: dict[str, str] = {}
    reached = start
    for sequence, term, payload in rows:
        if len(found) == NEWS_MEMBERS:
            break
        reached = sequence
        fact = fact_in(payload) if payload is not None else None
        if isinstance(fact, RenewalFailed):
            found[fact.member_id] = fact.detail
        elif isinstance(fact, CertificateServed):
            found.setdefault(fact.member_id, "")
        elif isinstance(fact, FailoverPromoted) and term == ledger.term:
            _promoted(state, batch, fact, now)
    if found or len(rows) == NEWS_ROWS:
        text = f"{ledger.term} {reached}".encode()
        batch.keep(LOCAL_READ_TO, text)
    before = book.read_to
    # Rows of this very drain were read too: after a rollback others get their numbers.
    batch.on_void.append(lambda: setattr(book, "read_to", before))
    book.read_to = reached
    return found


def _begin(ledger: Ledger) -> int:
    """Return where this reign left off, or, when it is a new one, the place to begin.

    Looking at a row twice is harmless: what is remembered is not told again.
    """
    head = ledger.head.sequence
    term, _, reached = (ledger.local_get(LOCAL_READ_TO) or b"").decode().partition(" ")
    if reached and int(term) == ledger.term:
        return min(int(reached), head)
    return max(0, head - REIGN_ROWS)


def _promoted(state: BrokerState, batch: Batch, fact: FailoverPromoted, now: UnixSeconds) -> None:
    if fact.host == state.host and is_wanted(state, "failover.promoted"):
        about = plain(f"{fact.cause}; {fact.evidence}", DETAIL_LENGTH_MAX)
        trouble = Trouble(
            "failover.promoted", f"term-{state.ledger.term}", fact.host, now, detail=about
        )
        _save(batch, trouble)


def _overdue(state: BrokerState, now: UnixSeconds) -> list[CaseRow]:
    """Return a page of members behind their due date; the pages go round."""
    book = state.notices
    rows = state.ledger.overdue(now, book.overdue_after, PAGE)
    last = rows[-1] if len(rows) == PAGE else None
    due = last.renew_at if last is not None else None
    book.overdue_after = (-1, "") if last is None or due is None else (due, last.member_id)
    return rows


def _remembered(state: BrokerState, batch: Batch) -> set[str]:
    """Return the members of a page of troubles; ends those of joins nobody waits for."""
    book, ledger = state.notices, state.ledger
    rows = ledger.troubles_page(book.reviewed_to, PAGE)
    book.reviewed_to = (rows[-1].about, rows[-1].event) if len(rows) == PAGE else ("", "")
    for row in rows:
        if row.event == "approval.pending":
            approval = ledger.approval(row.about)
            if approval is None or approval.state != "pending":
                _end(batch, row)
    return {row.about for row in rows if row.event in REPAIRABLE}


def _forget(state: BrokerState, batch: Batch, gone: set[str]) -> None:
    """Forget members that this ledger does not know: a fork took their rows aside."""
    for row in state.ledger.troubles_about(gone) if gone else ():
        _end(batch, row)


def _settle(batch: Batch, scene: Scene, case: Case, failed: str) -> None:
    """Make what is remembered of one member what is."""
    known = scene.known.get(case.member_id, {})
    found = troubles_of(case, scene.now, known, failed)
    changes = compare(known, found, active=case.active)
    for trouble in changes.news:
        if trouble.event not in known:
            if scene.room[trouble.event] <= 0:
                continue
            scene.room[trouble.event] -= 1
        _save(batch, trouble)
        _say_loud(batch, trouble)
    for trouble in changes.over:
        _end(batch, TroubleRow(*trouble.columns))
    if changes.recovered and changes.people_knew and scene.tells_of_recovery:
        over = f"over: {', '.join(changes.recovered)}"
        well = Trouble("renewal.recovered", case.member_id, case.host, scene.now, detail=over)
        _save(batch, well)


def _approvals(state: BrokerState, batch: Batch, now: UnixSeconds) -> None:
    ledger = state.ledger
    rows = ledger.approvals_since(now - APPROVAL_SETTLES_S, PAGE)
    if not rows:
        return
    known = {row.about for row in ledger.troubles_about(row[0] for row in rows)}
    room = KIND_MAX - ledger.trouble_count("approval.pending")
    for approval_id, host, source, at in [row for row in rows if row[0] not in known][:room]:
        why = plain(f"from {source}", DETAIL_LENGTH_MAX)
        when = UnixSeconds(at)
        _save(batch, Trouble("approval.pending", approval_id, host, when, detail=why))


def _say_loud(batch: Batch, trouble: Trouble) -> None:
    event = _LOUD.get(trouble.event)
    if event is not None:
        batch.after_commit.append(
            lambda: log(
                event, host=trouble.host, not_after=int(trouble.mark), detail=trouble.detail
            )
        )


def _save(batch: Batch, trouble: Trouble) -> None:
    row = TroubleRow(*trouble.columns)
    batch.beside(lambda ledger: ledger.trouble_save(row))


def _end(batch: Batch, row: TroubleRow) -> None:
    batch.beside(lambda ledger: ledger.trouble_end(row))
