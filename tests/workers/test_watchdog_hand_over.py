"""The watchdog asks the broker to step down when the pool stops: once, and without waiting."""

import os
import threading
from collections.abc import Iterator

import pytest

from broker.client import Link
from broker.clock import boottime_ms
from broker.errors import ConflictError, NotPrimaryError
from broker.runtime.paths import Paths
from broker.wire.base import Reply
from broker.wire.ids import Service
from broker.wire.standby import StepDown, StepDownAnswer
from tests.stub_broker import StubBroker
from tests.support import eventually
from tests.workers.loop_desk import StopByHand
from workers.watchdog.listener import DONE, READY, Listener
from workers.watchdog.logic import HAND_OVER_MS, POOL_STOPS
from workers.watchdog.table import Table
from workers.watchdog.ticker import Ticker
from workers.watchdog.watch import Watch, _turn_until

STOPPING = f"ver:3.0 eventname:{POOL_STOPS} len:0\n".encode()
TICK = b"ver:3.0 eventname:TICK_5 len:0\n"


class Bench:
    """A watchdog with its two pipes, turning in a thread; supervisord itself is not there."""

    def __init__(self, link: Link, paths: Paths) -> None:
        self._source, self._feeder = os.pipe()
        self._reader, self._sink = os.pipe()
        self.stop = StopByHand()
        self.watch = Watch(link, Table(paths.supervisor_socket), paths, 60_000)
        self.errors: list[BaseException] = []
        self._thread = threading.Thread(target=self._turn, daemon=True)

    def start(self) -> None:
        """Begin to turn."""
        self._thread.start()
        assert os.read(self._reader, 100) == READY

    def tell(self, event: bytes) -> None:
        """Send an event as supervisord does."""
        os.write(self._feeder, event)

    def acknowledged(self) -> bytes:
        """Return what the watchdog said of the last event."""
        return os.read(self._reader, 1000)

    def close(self) -> None:
        """Stop turning."""
        self.stop.ask()
        self._thread.join(10)
        self.stop.close()
        for descriptor in (self._source, self._feeder, self._reader, self._sink):
            os.close(descriptor)

    def _turn(self) -> None:
        try:
            listener = Listener(self._source, self._sink)
            _turn_until(self.stop, self.watch, listener, Ticker(2))  # type: ignore[arg-type]  # set by hand
        except BaseException as error:  # noqa: BLE001 (shown by the test)
            self.errors.append(error)


@pytest.fixture
def broker(paths: Paths) -> Iterator[StubBroker]:
    """The broker of a primary with a ready standby."""
    with StubBroker(paths) as stub:
        stub.answers[StepDown] = lambda _: StepDownAnswer(successor="node-b", term=4)
        yield stub


@pytest.fixture
def bench(broker: StubBroker, paths: Paths) -> Iterator[Bench]:
    """A watchdog that is known to the broker."""
    assert broker.boot_id
    with Link(paths, Service.WATCHDOG, "watchdog") as link:
        link.introduce()
        found = Bench(link, paths)
        found.start()
        try:
            yield found
        finally:
            found.close()
        assert found.errors == []


def test_the_step_down_is_tried_once_when_supervisord_stops(
    bench: Bench, broker: StubBroker
) -> None:
    """The standby takes over before anybody has missed the primary."""
    bench.tell(TICK)
    assert bench.acknowledged() == DONE + READY
    assert broker.seen(StepDown) == []

    bench.tell(STOPPING)
    bench.tell(STOPPING)

    eventually(lambda: broker.seen(StepDown))
    bench.tell(TICK)
    eventually(lambda: bench.watch.state.hand_over.is_sent)
    assert broker.seen(StepDown) == [StepDown(operator="pool stop", closing=True)]


@pytest.mark.parametrize("refusal", [NotPrimaryError("a member"), ConflictError("nobody is ready")])
def test_a_refusal_to_step_down_harms_nobody(
    bench: Bench, broker: StubBroker, refusal: Exception
) -> None:
    """Most nodes are no primary; the pool stops all the same."""

    def refuse(_: StepDown) -> Reply:
        raise refusal

    broker.answers[StepDown] = refuse
    bench.tell(STOPPING)
    eventually(lambda: broker.seen(StepDown))

    bench.tell(TICK)

    assert bench.acknowledged()
    eventually(lambda: bench.watch.state.progress >= 2)
    assert len(broker.seen(StepDown)) == 1


def test_a_silent_broker_does_not_hold_the_event_channel_up(
    bench: Bench, broker: StubBroker
) -> None:
    """Supervisord stops the rest meanwhile, and needs this listener's ticking."""
    broker.silent = True
    began_ms = boottime_ms()

    bench.tell(STOPPING)
    assert bench.acknowledged() == DONE + READY
    bench.tell(TICK)
    assert bench.acknowledged() == DONE + READY

    assert boottime_ms() - began_ms < HAND_OVER_MS


def test_a_broker_that_comes_back_in_time_is_still_asked(bench: Bench, broker: StubBroker) -> None:
    """It may just be restarting."""
    broker.stop()
    eventually(lambda: not bench.watch._link.registered)
    bench.tell(STOPPING)
    bench.acknowledged()

    broker.start()

    eventually(lambda: broker.seen(StepDown))
