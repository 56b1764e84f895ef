"""The loop that tells people: each target is a stream of its own, with one notice under way.

The broker leases one notice a target, so a target that hangs holds up nobody but itself. Each call
runs in a thread and is cut at its deadline; meanwhile the process beats and obeys a stop.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from broker.clock import boottime_ms
from broker.errors import MeshError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.runtime.settings import Notify, Settings
from broker.wire.base import Event
from broker.wire.control import Ack
from broker.wire.events import WorkAvailable
from broker.wire.ids import Service
from broker.wire.work import (
    CompleteWork,
    Failed,
    Lease,
    LeaseWork,
    ReleaseLease,
    SendNotice,
    Sent,
    WorkAnswer,
)
from workers.notify.logic import IDLE, NotTakenError
from workers.process import Desk, Outcome

if TYPE_CHECKING:
    from workers.notify.targets import Target
    from workers.outcall import Outcall

PERIOD_MS = 60_000
RELEASE_MS = 300
DETAIL_LENGTH_MAX = 300
UNNOTED_MAX = 1_024
"""The outbox holds 256 notices, and there are three kinds of targets."""

Build = Callable[[Notify, Path], "dict[str, Target]"]


@dataclass(slots=True)
class Flight:
    """A notice on its way to one target; `until_ms` is when it is given up."""

    lease: Lease
    item: SendNotice
    target: str
    call: "Outcall[str]"
    until_ms: int


class NotifyLoop:
    """One notify process; `build` makes the targets, for tests to replace."""

    service = Service.NOTIFY
    wakes: tuple[type[Event], ...] = (WorkAvailable,)
    period_ms = PERIOD_MS

    def __init__(self, settings: Settings, paths: Paths, build: Build | None = None) -> None:
        self._notify = settings.notify
        self._home = paths.home
        self._build = build or _build
        self._targets: dict[str, Target] = {}
        self._failing: dict[str, str] = {}
        self._unnoted: dict[tuple[str, str], Sent] = {}

    def round(self, desk: Desk) -> Outcome:
        """Tell until nothing is left that may be told now."""
        if not self._notify.targets:
            return Outcome(state=IDLE)
        flights: list[Flight] = []
        try:
            next_ms = self._fly(desk, flights)
        finally:
            _end(flights)
        said = "; ".join(f"{name}: {why}" for name, why in sorted(self._failing.items()))
        return Outcome(next_in_ms=min(next_ms, PERIOD_MS), error=said)

    def _fly(self, desk: Desk, flights: list[Flight]) -> int:
        """Keep one notice in flight for each target; return when to come again."""
        while True:
            next_ms = self._fill(desk, flights)
            if desk.stopping():
                _give_back(desk, flights)
                return next_ms
            if not flights:
                return next_ms
            wait_ms = min(flight.until_ms for flight in flights) - boottime_ms()
            desk.wait(max(0, wait_ms), *(flight.call.fileno() for flight in flights))
            for flight in [flight for flight in flights if _is_over(flight)]:
                flights.remove(flight)
                sent = self._result_of(flight)
                flight.call.close()
                self._land(desk, flight, sent)

    def _fill(self, desk: Desk, flights: list[Flight]) -> int:
        """Take off with what the broker has; return when it has more."""
        while len(flights) < len(self._notify.targets) and not desk.stopping():
            answer = desk.ask(LeaseWork(), WorkAnswer)
            if answer.lease is None:
                return answer.next_in_ms
            flight = self._take_off(desk, answer.lease)
            if flight is not None:
                flights.append(flight)
        return 0

    def _take_off(self, desk: Desk, lease: Lease) -> Flight | None:
        from workers.outcall import Outcall  # noqa: PLC0415 (HTTP and TLS weigh 12 MB, see below)

        item = lease.item
        # A node that nobody is told about any more should not pay for what telling takes.
        self._targets = self._targets or self._build(self._notify, self._home)
        waiting = item.waiting if isinstance(item, SendNotice) else ()
        named = [name for name in waiting if name in self._targets]
        if not isinstance(item, SendNotice) or not named:
            refusal = Failed("this process has no such target; the settings changed")
            desk.ask(CompleteWork(lease.lease_id, refusal), Ack)
            return None
        known = self._unnoted.get((item.notice.notice_id, named[0]))
        if known is not None:
            self._note(desk, lease, (item, named[0], known))
            return None
        target = self._targets[named[0]]
        call = Outcall(lambda wires: target.deliver(item.notice, wires), named[0])
        call.start()
        until_ms = boottime_ms() + self._notify.timeout.ms
        return Flight(lease, item, named[0], call, until_ms)

    def _land(self, desk: Desk, flight: Flight, sent: Sent) -> None:
        fields = {
            "target": flight.target,
            "kind": flight.item.notice.event,
            "subject": flight.item.notice.subject,
            "notice_id": flight.item.notice.notice_id,
        }
        if sent.taken:
            self._failing.pop(flight.target, None)
            log(EventName.NOTICE_SENT, **fields)
        if sent.detail:
            log(EventName.NOTICE_FAILED, detail=sent.detail, **fields)
        if not sent.taken:
            self._failing[flight.target] = sent.detail
        error = self._note(desk, flight.lease, (flight.item, flight.target, sent))
        if error is not None:
            log(EventName.NOTICE_FAILED, level="info", detail=error.detail, **fields)

    def _note(
        self, desk: Desk, lease: Lease, what: tuple[SendNotice, str, Sent]
    ) -> MeshError | None:
        """Tell the broker; return why it does not take that, if it does not.

        What went out is then remembered: with the next lease (this one was lost, the disk was
        full, another broker came) it is noted, and not sent again by this process.
        """
        item, target, sent = what
        key = (item.notice.notice_id, target)
        try:
            desk.ask(CompleteWork(lease.lease_id, sent), Ack)
        except MeshError as error:
            if sent.taken:
                self._unnoted[key] = sent
            while len(self._unnoted) > UNNOTED_MAX:
                del self._unnoted[next(iter(self._unnoted))]
            return error
        self._unnoted.pop(key, None)
        return None

    def _result_of(self, flight: Flight) -> Sent:
        if not flight.call.has_ended():
            return Sent((), "did not answer in time")
        try:
            said = flight.call.result() or ""
        except NotTakenError as error:
            return Sent((), error.detail[:DETAIL_LENGTH_MAX], error.retry_after_ms)
        except MeshError as error:
            return Sent((), f"{error.detail} ({error.hint})"[:DETAIL_LENGTH_MAX])
        except Exception as error:  # noqa: BLE001 (whatever an answer did to a library, it is one target's)
            return Sent((), f"the call failed ({type(error).__name__})")
        return Sent((flight.target,), said[:DETAIL_LENGTH_MAX])


def _is_over(flight: Flight) -> bool:
    return flight.call.has_ended() or boottime_ms() >= flight.until_ms


def _end(flights: list[Flight]) -> None:
    """Cut whatever is still under way, all at once: a stop has a second."""
    for flight in flights:
        flight.call.cut()
    for flight in flights:
        flight.call.close()


def _give_back(desk: Desk, flights: list[Flight]) -> None:
    for flight in flights:
        desk.ask(ReleaseLease(flight.lease.lease_id), Ack, timeout_ms=RELEASE_MS)


def _build(notify: Notify, home: Path) -> "dict[str, Target]":
    from workers.notify.targets import targets_of  # noqa: PLC0415 (12 MB, see `_take_off`)

    return targets_of(notify, home)
