"""The outbox: notices are durable before anybody is told, and stay until they were taken.

Each target of `[notify]` is a stream of its own: one notice at a time, oldest first, leased to the
notify worker. A notice that a target refuses rests (30 s, doubling up to an hour) while others pass
it; a target that failed is left alone for a moment with everything. After a day of trying a notice
is dropped, and a log line says so.

Killed anywhere, this tells at least once: a notice leaves the outbox with the same commit that ends
its lease.
"""

from collections.abc import Hashable, Iterator
from dataclasses import replace

from broker.core.notices import ONE_SHOT, Trouble, plain
from broker.core.outbox import (
    ERROR_LENGTH_MAX,
    NOTICES_MAX,
    PAUSE_MS,
    TRY_MS_MAX,
    Parcel,
    wait_ms,
)
from broker.core.telling import Teller, Window
from broker.ledger.notice_store import ParcelRow
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.units import Millis, UnixSeconds
from broker.wire.events import WorkAvailable
from broker.wire.ids import Service
from broker.wire.notice import Notice, NoticeEvent
from broker.wire.work import Failed, SendNotice, Sent

NOTICE_ID_BYTES = 16
NAMED_ROWS = 64
TIDY_EVERY_MS = 10_000
LOOK_MS_MAX = 60_000


def is_wanted(state: BrokerState, event: NoticeEvent) -> bool:
    """Whether the settings name somebody who wants to hear of this."""
    notify = state.settings.notify
    return bool(notify.targets) and (event == "notify.test" or event in notify.on)


def tell(state: BrokerState, batch: Batch, now_ms: Millis, now: UnixSeconds) -> None:
    """Put what people do not know of yet into the outbox."""
    teller = teller_of(state, now)
    if state.settings.notify.targets:
        for event in state.settings.notify.on:
            _tell(state, batch, (event, teller), now_ms)
    if now_ms >= state.notices.tidy_ms:
        state.notices.tidy_ms = now_ms + TIDY_EVERY_MS
        _tidy(state, batch, now)


def teller_of(state: BrokerState, now: UnixSeconds) -> Teller:
    """Return who speaks here."""
    mesh = state.membership.mesh_name if state.membership else ""
    return Teller(mesh, state.host, now)


def post(state: BrokerState, batch: Batch, notice: Notice) -> None:
    """Put one notice into the outbox, for every target there is."""
    targets = state.settings.notify.targets
    batch.beside(lambda ledger: ledger.parcel_post(notice, targets))
    lost: list[ParcelRow] = []
    batch.beside(lambda ledger: lost.extend(ledger.parcels_trim(NOTICES_MAX)))
    for row in lost:
        _say_dropped(batch, Parcel(*row), "too many wait")
    batch.publish(WorkAvailable(Service.NOTIFY))


def new_id(state: BrokerState) -> str:
    """Return the random name of a notice: whoever hears of it twice knows it again."""
    return state.draw(NOTICE_ID_BYTES).hex()


def _tell(
    state: BrokerState, batch: Batch, what: tuple[NoticeEvent, Teller], now_ms: Millis
) -> None:
    event, teller = what
    book, ledger = state.notices, state.ledger
    waiting = ledger.untold_count(event)
    before = book.windows.get(event, Window())
    window, singles, sum_up = before.next(waiting, now_ms)
    if not singles and not sum_up:
        return
    book.windows[event] = window
    batch.on_void.append(lambda: book.windows.update({event: before}))
    rows = [Trouble(*row) for row in ledger.untold(event, NAMED_ROWS)]
    if sum_up and waiting > 1:
        post(state, batch, teller.many(new_id(state), event, waiting, rows))
    else:
        for trouble in rows[: singles or 1]:
            post(state, batch, teller.one(new_id(state), trouble))
    batch.beside(
        lambda book: book.troubles_end(event) if event in ONE_SHOT else book.troubles_told(event)
    )


def parcels_to_send(state: BrokerState, caller: Caller) -> Iterator[tuple[Hashable, SendNotice]]:
    """Yield for each target that is free the oldest notice that it may be tried with now."""
    book = state.notices
    parcels = _waiting(state)
    for target in state.settings.notify.targets:
        if book.pauses.get(target, 0) > caller.now_ms:
            continue
        for parcel in parcels:
            notice = parcel.notice
            rests_ms = book.rests.get((notice.notice_id, target), 0)
            if target in parcel.tries and rests_ms <= caller.now_ms:
                yield ("notify", target), SendNotice(state.host, notice, (target,))
                break


def next_notice_ms(state: BrokerState, caller: Caller) -> int:
    """Return when asking for a notice makes sense again if nothing is published meanwhile."""
    book = state.notices
    moments = [
        max(
            book.pauses.get(target, 0),
            book.rests.get((parcel.notice.notice_id, target), 0),
        )
        for parcel in _waiting(state)
        for target in parcel.tries
    ]
    soonest = min(moments, default=caller.now_ms + LOOK_MS_MAX) - caller.now_ms
    return max(250, min(soonest, LOOK_MS_MAX))


def note_sent(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[SendNotice, Sent | Failed]
) -> None:
    """Write down who took the notice; whoever did not is tried again later."""
    item, result = what
    row = state.ledger.parcel(item.notice.notice_id)
    if row is None or row.state != "waiting":
        return
    sent = result if isinstance(result, Sent) else Sent((), result.detail)
    taken = frozenset(sent.taken) & frozenset(item.waiting)
    parcel = Parcel(*row).after(taken, item.waiting, plain(sent.detail, ERROR_LENGTH_MAX))
    _save(batch, parcel)
    asked_ms = min(sent.retry_after_ms, TRY_MS_MAX)
    batch.after_commit.append(lambda: _rest(state, parcel, item, caller.now_ms + asked_ms))


def _rest(state: BrokerState, parcel: Parcel, item: SendNotice, from_ms: int) -> None:
    """Leave targets that failed alone for a while: with this notice longer than with others."""
    book = state.notices
    for target in item.waiting:
        failures, _ = parcel.tries.get(target, (0, ""))
        if failures:
            book.rests[(parcel.notice.notice_id, target)] = from_ms + wait_ms(failures)
            book.pauses[target] = from_ms + PAUSE_MS
        else:
            book.rests.pop((parcel.notice.notice_id, target), None)
            book.pauses.pop(target, None)


def _tidy(state: BrokerState, batch: Batch, now: UnixSeconds) -> None:
    """Drop what was tried for a day, and targets that the settings no longer name."""
    targets = frozenset(state.settings.notify.targets)
    waiting = _waiting(state)
    for parcel in waiting:
        gone = frozenset(parcel.tries) - targets
        if gone:
            left = parcel.without(gone)
            _save(batch, left)
            if left.state == "dropped":
                _say_dropped(batch, parcel, "its targets are gone from the settings")
        elif parcel.is_hopeless(now):
            _save(batch, replace(parcel, state="dropped"))
            _say_dropped(batch, parcel, "nobody took it for a day")
    known = {parcel.notice.notice_id for parcel in waiting}
    for key in [key for key in state.notices.rests if key[0] not in known]:
        del state.notices.rests[key]


def _say_dropped(batch: Batch, parcel: Parcel, why: str) -> None:
    batch.after_commit.append(
        lambda: log(
            EventName.NOTICE_DROPPED,
            kind=parcel.notice.event,
            subject=parcel.notice.subject,
            summary=parcel.notice.summary,
            reason=why,
            last_error=parcel.line.last_error,
        )
    )


def _save(batch: Batch, parcel: Parcel) -> None:
    row = ParcelRow(parcel.number, parcel.notice, parcel.state, parcel.attempts, dict(parcel.tries))
    batch.beside(lambda ledger: ledger.parcel_save(row))


def _waiting(state: BrokerState) -> list[Parcel]:
    return [Parcel(*row) for row in state.ledger.parcels_waiting()]
