"""Hosts any worker loop: connects, READY, liveness, wakes on event or deadline, stops politely.

One poller holds everything that can wake the process: the broker's sockets, its events, the stop
signal. Between rounds the host beats by itself; inside a round the loop beats through its `Desk`,
so that a beat always means progress of the loop and not just a living process.
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import zmq

from broker.client import Link, Subscription
from broker.client.protocol import ASK_MS, R, promise_ms
from broker.clock import boottime_ms, wall_s
from broker.errors import MeshError, UnavailableError
from broker.runtime.events import EventName
from broker.runtime.exits import Exit
from broker.runtime.logs import log, setup_logs
from broker.runtime.main import run_process, wants_once
from broker.runtime.paths import Paths
from broker.runtime.privileges import NOTHING, Needs
from broker.runtime.settings import Settings
from broker.runtime.stop import StopSignal
from broker.units import Millis, UnixSeconds
from broker.wire.base import Event, Request
from broker.wire.events import WorkAvailable
from broker.wire.ids import Service
from broker.wire.liveness import SILENCE_MS_MAX, Beat
from broker.wire.node import GetNode, NodeView

FIRST_ROUND_MS_MAX = 1_000
"""Loops of one node start spread over this; nothing far away is asked in a first round alone."""
LOOK_UP_MS = 500
"""An idle loop notices a new broker within this."""
BACKOFF_MS_MIN = 100
ONCE_PATIENCE_MS = 5000
KNOCK_EVERY_MS = 50
"""How soon an idle worker notices that its broker is back."""

OUTDATED = "the broker is of another release"
"""Why a process leaves that nobody asked to."""

TEXT_MAX = 1024


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one round came to.

    Args:
        next_in_ms: When to come again; None means after the loop's period.
        error: Why the round did not succeed; empty when it did.
        state: What `certmesh ps` shows, such as `not the primary`; empty when working normally.
    """

    next_in_ms: int | None = None
    error: str = ""
    state: str = ""


class Loop(Protocol):
    """The work of one process: one round at a time, woken by its events or its period."""

    service: Service
    wakes: tuple[type[Event], ...]
    period_ms: int

    def round(self, desk: "Desk") -> Outcome:
        """Do one pass and return what came of it; a MeshError means: not now, try again."""
        ...


class Desk:
    """What a loop works with during a round."""

    def __init__(
        self,
        link: Link,
        paths: Paths,
        settings: Settings,
        stop: StopSignal,
        events: Subscription | None = None,
    ) -> None:
        self.link = link
        self.paths = paths
        self.settings = settings
        self.record = Record()
        self.events = events
        self._stop = stop

    def ask(self, request: Request, kind: type[R], *, timeout_ms: int = ASK_MS) -> R:
        """Return the broker's reply; beats first when the answer may take long."""
        if timeout_ms >= self._promise_ms() or self.record.beat_is_due(self.link.beat_every_ms):
            self.beat(timeout_ms)
        return self.link.ask(request, kind, timeout_ms=timeout_ms)

    def post(self, request: Request) -> None:
        """Send a request without waiting; its answer is not looked at."""
        self.link.post(request)

    def node(self) -> NodeView:
        """Return who this node is right now."""
        return self.ask(GetNode(), NodeView)

    def beat(self, within_ms: int) -> None:
        """Tell the broker that the loop may be silent for `within_ms` from now."""
        self.link.collect()
        self.link.keep_registered()
        promise_ms = min(max(0, within_ms) + self._promise_ms(), SILENCE_MS_MAX)
        self.record.progress += 1
        self.record.beat_ms = boottime_ms()
        self.link.beat(self.record.beat(promise_ms))

    def stopping(self) -> bool:
        """Return whether the process was asked to stop."""
        return self._stop.requested()

    def broker_life(self) -> str:
        """Return which lifetime of the broker answered last; empty before the first."""
        return self.link.welcome.broker_boot_id if self.link.welcome else ""

    def wait(self, wait_ms: int, *descriptors: "int | zmq.Socket[bytes]") -> list[object]:
        """Wait up to `wait_ms` for `descriptors`, beating meanwhile; return the readable ones.

        Returns early, with what is readable, once the process was asked to stop.
        """
        deadline_ms = boottime_ms() + wait_ms
        while True:
            self._beat_when_due()
            left_ms = deadline_ms - boottime_ms()
            known = self.link.keep_registered()
            slice_ms = self.link.beat_every_ms if known else KNOCK_EVERY_MS
            found = self._poll(max(0, min(left_ms, slice_ms)), descriptors)
            if found or left_ms <= 0 or self.stopping():
                return found

    def _poll(
        self, wait_ms: int, descriptors: tuple["int | zmq.Socket[bytes]", ...]
    ) -> list[object]:
        poller = zmq.Poller()
        for item in (*self.link.descriptors(), self._stop.fileno(), *descriptors):
            poller.register(item, zmq.POLLIN)
        ready = dict(poller.poll(wait_ms))
        self.link.collect()
        return [item for item in descriptors if item in ready]

    def _beat_when_due(self) -> None:
        if self.record.beat_is_due(self.link.beat_every_ms):
            self.beat(0)

    def _promise_ms(self) -> int:
        return promise_ms(self.link.beat_every_ms)


@dataclass(slots=True)
class Record:
    """What the beats of this process say."""

    progress: int = 0
    beat_ms: Millis | None = None
    due_ms: Millis | None = None
    last_success_at: UnixSeconds | None = None
    last_error: str = ""
    state: str = "starting"

    def beat_is_due(self, every_ms: int) -> bool:
        """Return whether the last beat is an interval old."""
        return self.beat_ms is None or boottime_ms() - self.beat_ms >= every_ms

    def beat(self, within_ms: int) -> Beat:
        """Return the beat that promises the next one within `within_ms`."""
        next_run_ms = None if self.due_ms is None else max(0, self.due_ms - boottime_ms())
        return Beat(
            progress=self.progress,
            within_ms=within_ms,
            last_success_at=self.last_success_at,
            last_error=self.last_error[:TEXT_MAX],
            next_run_ms=next_run_ms,
            state=self.state[:TEXT_MAX],
        )


class Host:
    """Drives one loop from the first READY to the goodbye."""

    def __init__(self, loop: Loop, desk: Desk, events: Subscription, stop: StopSignal) -> None:
        self._loop = loop
        self._desk = desk
        self._events = events
        self._stop = stop
        self._failures = 0
        self._awaited = False
        self._broker = ""

    def run_once(self) -> int:
        """Do one round and return the exit status."""
        try:
            self._desk.link.introduce(timeout_ms=ONCE_PATIENCE_MS)
        except UnavailableError as error:
            log(EventName.BROKER_AWAITED, detail=error.detail, hint=error.hint)
            return Exit.TEMPORARY
        self._round()
        self._desk.link.goodbye("done")
        return Exit.FAILED if self._desk.record.last_error else Exit.OK

    def run(self) -> int:
        """Do rounds until a stop signal and return the exit status.

        `Exit.TEMPORARY`: the broker is of another release; whoever starts this process again does
        it from the release on disk.
        """
        self._await_broker()
        spread_ms = min(self._loop.period_ms, FIRST_ROUND_MS_MAX)
        self._schedule(random.randrange(max(1, spread_ms)))  # noqa: S311 (spreads load, hides nothing)
        while not self._is_over():
            if self._is_due() and self._watch_broker():
                self._round()
            self._idle()
        if not self._desk.stopping():
            log(EventName.PROCESS_STOPPING, reason=OUTDATED)
            return Exit.TEMPORARY
        log(EventName.PROCESS_STOPPING)
        self._desk.link.goodbye("stopping")
        return Exit.OK

    def _is_over(self) -> bool:
        return self._desk.stopping() or self._desk.link.is_outdated()

    def _await_broker(self) -> None:
        while not self._is_over():
            try:
                self._desk.link.introduce(timeout_ms=1000)
            except MeshError as error:
                self._say_waiting(error)
                self._desk.wait(error.retry_after_ms or BACKOFF_MS_MIN)
                continue
            self._awaited = False
            log(EventName.PROCESS_READY)
            return

    def _say_waiting(self, error: MeshError) -> None:
        if not self._awaited:
            log(EventName.BROKER_AWAITED, detail=error.detail, hint=error.hint)
        self._awaited = True

    def _watch_broker(self) -> bool:
        """Return whether the broker knows us; waits for it, saying so once, when it is gone."""
        if not self._desk.link.keep_registered():
            self._await_broker()
        return self._desk.link.registered

    def _idle(self) -> None:
        """Wait for the next round's time, an event of ours, or the stop signal."""
        while not self._is_over() and not self._is_due():
            due_ms = self._desk.record.due_ms
            assert due_ms is not None
            wait_ms = min(max(0, due_ms - boottime_ms()), LOOK_UP_MS)
            readable = self._desk.wait(wait_ms, self._events.socket)
            if (readable and self._wakes()) or self._is_new_broker():
                self._schedule(0)

    def _is_new_broker(self) -> bool:
        """Return whether another broker lifetime answers: it forgot what we told the last one."""
        before, self._broker = self._broker, self._desk.broker_life() or self._broker
        return bool(before) and before != self._broker

    def _is_due(self) -> bool:
        due_ms = self._desk.record.due_ms
        return due_ms is not None and boottime_ms() >= due_ms

    def _wakes(self) -> bool:
        """Take all waiting events and return whether one of them is for this loop."""
        wakes = False
        while (event := self._events.receive()) is not None:
            others_work = isinstance(event, WorkAvailable) and event.service != self._loop.service
            wakes = wakes or not others_work
        return wakes

    def _round(self) -> None:
        record = self._desk.record
        self._desk.beat(0)
        try:
            outcome = self._loop.round(self._desk)
        except MeshError as error:
            outcome = self._failed(error)
        else:
            self._failures = 0
        self._note(outcome)
        wait_ms = self._loop.period_ms if outcome.next_in_ms is None else outcome.next_in_ms
        self._schedule(wait_ms)
        record.progress += 1
        self._desk.beat(0)

    def _failed(self, error: MeshError) -> Outcome:
        """Return the outcome of a round that raised: again soon, then less and less often."""
        wait_ms = BACKOFF_MS_MIN << min(self._failures, 20)
        self._failures += 1
        wait_ms = max(min(wait_ms, self._loop.period_ms), error.retry_after_ms)
        return Outcome(next_in_ms=wait_ms, error=error.detail, state=self._desk.record.state)

    def _note(self, outcome: Outcome) -> None:
        record = self._desk.record
        if outcome.error and outcome.error != record.last_error and not self._desk.stopping():
            log(EventName.ROUND_FAILED, detail=outcome.error)
        if not outcome.error:
            record.last_success_at = wall_s()
        record.last_error, record.state = outcome.error, outcome.state

    def _schedule(self, in_ms: int) -> None:
        self._desk.record.due_ms = Millis(boottime_ms() + max(0, in_ms))


def run_loop(loop: Loop, settings: Settings, paths: Paths, *, once: bool) -> int:
    """Run `loop` as this process and return its exit status.

    With `once`: one round right away; 0 when it succeeded, 1 when not, 75 without a broker.
    """
    instance = instance_name(loop.service)
    log(EventName.PROCESS_STARTED, service=loop.service.value)
    with (
        StopSignal() as stop,
        zmq.Context() as context,
        Link(paths, loop.service, instance, context=context, stopping=stop.requested) as link,
        Subscription(paths, loop.wakes, context=context) as events,
    ):
        host = Host(loop, Desk(link, paths, settings, stop, events), events, stop)
        return host.run_once() if once else host.run()


def run_worker(build: Callable[[Settings, Paths], Loop], needs: Needs = NOTHING) -> int:
    """Run the loop that `build` makes as a whole process: the last line of a `__main__`."""

    def main(settings: Settings, paths: Paths) -> int:
        loop = build(settings, paths)
        setup_logs(settings, loop.service.value)
        return run_loop(loop, settings, paths, once=wants_once())

    return run_process(main, needs=needs)


def instance_name(service: Service) -> str:
    """Return this process's name among those of its service: as supervisord calls it.

    Without a supervisor a person started it, next to the one of the process table; under that
    one's name it would drive it out of the broker's books.
    """
    supervised = os.environ.get("SUPERVISOR_PROCESS_NAME")
    return supervised or f"{service.value}-once-{os.getpid()}"
