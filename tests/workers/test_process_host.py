"""The host of every worker loop, in this process, against a stub broker."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from broker.clock import boottime_ms
from broker.errors import BusyError, CALockedError
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.base import Event
from broker.wire.control import Ack
from broker.wire.events import RosterMoved, WorkAvailable
from broker.wire.ids import Service
from broker.wire.liveness import SILENCE_MS_MAX, Beat, Goodbye, Ready
from broker.wire.node import GetNode
from broker.wire.work import ReleaseLease
from tests.stub_broker import StubBroker
from tests.support import eventually, throughout
from workers.process import Desk, Outcome, run_loop

Round = Callable[[Desk], Outcome]


@dataclass
class FakeLoop:
    """A loop whose round is a function; counts its rounds."""

    body: Round = lambda _: Outcome()
    service: Service = Service.RENEWAL
    wakes: tuple[type[Event], ...] = (RosterMoved, WorkAvailable)
    period_ms: int = 60_000
    rounds: list[int] = field(default_factory=list)

    def round(self, desk: Desk) -> Outcome:
        """Count and do what the test wants."""
        self.rounds.append(boottime_ms())
        return self.body(desk)


@pytest.fixture
def broker(paths: Paths) -> Iterator[StubBroker]:
    """A stub broker that wants a beat every 50 ms."""
    with StubBroker(paths, {ReleaseLease: lambda _: Ack()}, beat_every_ms=50) as stub:
        yield stub


def _after(probe: Callable[[], object]) -> Callable[[], None]:
    """Return a script that is done as soon as `probe` holds."""

    def script() -> None:
        eventually(probe)

    return script


class Driver(threading.Thread):
    """Runs a test's script beside `run_loop`, which needs the main thread; stops it at the end."""

    def __init__(self, script: Callable[[], None], unarmed: object) -> None:
        super().__init__(daemon=True)
        self._script = script
        self._unarmed = unarmed
        self._error: BaseException | None = None

    def run(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Run the script, remember its failure, stop the loop."""
        try:
            eventually(lambda: signal.getsignal(signal.SIGTERM) != self._unarmed)
            self._script()
        except BaseException as error:  # noqa: BLE001 (raised again by `finish`)
            self._error = error
        finally:
            if signal.getsignal(signal.SIGTERM) != self._unarmed:
                os.kill(os.getpid(), signal.SIGTERM)

    def finish(self) -> None:
        """Raise what went wrong in the script."""
        self.join(5)
        if self._error is not None:
            raise self._error


def _once(broker: StubBroker, loop: FakeLoop, settings: Settings, paths: Paths) -> int:
    """Run one round, until the broker has read all that was said, and return the status."""
    status = run_loop(loop, settings, paths, once=True)
    eventually(lambda: broker.seen(Goodbye))
    return status


@pytest.fixture
def run(settings: Settings, paths: Paths) -> Callable[[FakeLoop, Callable[[], None]], int]:
    """Run a loop until the script beside it is done."""

    def go(loop: FakeLoop, script: Callable[[], None]) -> int:
        driver = Driver(script, signal.getsignal(signal.SIGTERM))
        driver.start()
        status = run_loop(loop, settings, paths, once=False)
        driver.finish()
        return status

    return go


Run = Callable[[FakeLoop, Callable[[], None]], int]


def test_once_does_one_round_right_away_and_says_goodbye(
    broker: StubBroker, settings: Settings, paths: Paths
) -> None:
    """Operators and tests use it: no random delay, no second round."""
    loop = FakeLoop()
    began_ms = boottime_ms()

    assert _once(broker, loop, settings, paths) == Exit.OK

    assert len(loop.rounds) == 1
    assert boottime_ms() - began_ms < 1000
    assert broker.seen(Goodbye) == [Goodbye(reason="done")]


def test_once_tells_by_its_status_that_the_round_failed(
    broker: StubBroker, settings: Settings, paths: Paths
) -> None:
    """Whether the loop returned the error or raised it."""

    def refused(_: Desk) -> Outcome:
        raise CALockedError("sealed")

    assert run_loop(FakeLoop(refused), settings, paths, once=True) == Exit.FAILED
    returned = FakeLoop(lambda _: Outcome(error="no"))
    assert run_loop(returned, settings, paths, once=True) == Exit.FAILED
    assert broker.seen(Ready)


def test_a_stop_signal_ends_an_idle_loop_within_a_second(broker: StubBroker, run: Run) -> None:
    """Exit 0, and the broker hears a goodbye, so that leases return at once."""
    asked: list[int] = []

    def script() -> None:
        eventually(lambda: broker.seen(Beat))
        asked.append(boottime_ms())

    assert run(FakeLoop(), script) == Exit.OK
    assert boottime_ms() - asked[0] < 1000
    eventually(lambda: broker.seen(Goodbye) == [Goodbye(reason="stopping")])


def test_a_stop_signal_is_noticed_while_there_is_no_broker(run: Run) -> None:
    """Any start order also means any stop order."""
    asked: list[int] = []
    loop = FakeLoop()

    assert run(loop, lambda: asked.append(boottime_ms())) == Exit.OK
    assert boottime_ms() - asked[0] < 1000
    assert not loop.rounds


def test_the_first_round_comes_after_a_random_part_of_the_period(
    broker: StubBroker, run: Run
) -> None:
    """Loops started together must not all work at the same instant."""
    delays = []
    for _ in range(6):
        loop = FakeLoop(period_ms=400)
        began_ms = boottime_ms()
        run(loop, _after(lambda loop=loop: loop.rounds))  # type: ignore[misc]  # bound now
        delays.append(loop.rounds[0] - began_ms)
    assert max(delays) < 700
    assert max(delays) - min(delays) > 20
    assert broker.seen(Ready)


def test_an_event_wakes_the_loop_before_its_period(broker: StubBroker, run: Run) -> None:
    """A change reaches the loop in milliseconds; the period is only the fallback."""
    loop = FakeLoop(lambda _: Outcome(next_in_ms=60_000), period_ms=1)

    def script() -> None:
        eventually(lambda: loop.rounds)
        broker.publish_until(RosterMoved(term=1, sequence=1), lambda: len(loop.rounds) >= 2)

    run(loop, script)


def test_many_events_during_a_round_cause_one_more_round(broker: StubBroker, run: Run) -> None:
    """Wakes coalesce: a storm of hints is one reason to look."""
    proceed = threading.Event()

    def slow(_: Desk) -> Outcome:
        assert proceed.wait(10)
        return Outcome(next_in_ms=60_000)

    loop = FakeLoop(slow, period_ms=1)

    def script() -> None:
        eventually(lambda: loop.rounds)
        for sequence in range(50):
            broker.publish(RosterMoved(term=1, sequence=sequence))
        eventually(broker._outbox.empty)
        throughout(lambda: len(loop.rounds) == 1, for_s=0.1)
        proceed.set()
        eventually(lambda: len(loop.rounds) >= 2)
        throughout(lambda: len(loop.rounds) == 2, for_s=0.3)

    run(loop, script)


def test_work_for_another_service_does_not_wake_this_one(broker: StubBroker, run: Run) -> None:
    """`work-available` names the service it is for."""
    loop = FakeLoop(lambda _: Outcome(next_in_ms=60_000), period_ms=1)

    def script() -> None:
        mine = WorkAvailable(service=Service.RENEWAL)
        broker.publish_until(mine, lambda: len(loop.rounds) >= 2)
        settled = len(loop.rounds)
        broker.publish(WorkAvailable(service=Service.APPROVAL))
        throughout(lambda: len(loop.rounds) <= settled + 1, for_s=0.2)
        settled = len(loop.rounds)
        broker.publish(WorkAvailable(service=Service.APPROVAL))
        throughout(lambda: len(loop.rounds) == settled, for_s=0.3)

    run(loop, script)


def test_a_failing_round_is_repeated_ever_less_often_up_to_the_period(
    broker: StubBroker, run: Run
) -> None:
    """Backoff starts at 100 ms, doubles, and ends at the loop's own period."""

    def refused(_: Desk) -> Outcome:
        raise CALockedError("sealed")

    loop = FakeLoop(refused, period_ms=400)
    run(loop, _after(lambda: len(loop.rounds) >= 6))

    gaps = [later - earlier for earlier, later in pairwise(loop.rounds)]
    assert 100 <= gaps[0] < 200 <= gaps[1] < 400 <= gaps[2]
    assert all(400 <= gap < 600 for gap in gaps[2:])
    assert broker.seen(Beat)[-1].last_error == "sealed"


def test_a_refusal_that_says_when_to_come_back_is_obeyed(broker: StubBroker, run: Run) -> None:
    """Throttling must not be answered by hammering."""

    def busy(_: Desk) -> Outcome:
        raise BusyError("full", retry_after_ms=500)

    loop = FakeLoop(busy, period_ms=100)
    run(loop, _after(lambda: len(loop.rounds) >= 2))

    assert loop.rounds[1] - loop.rounds[0] >= 500
    assert broker.seen(Ready)


def test_beats_tell_how_the_loop_is_doing(broker: StubBroker, run: Run) -> None:
    """`certmesh ps` lives on these (P11)."""
    loop = FakeLoop(lambda _: Outcome(next_in_ms=30_000, state="not the primary"), period_ms=1)

    def script() -> None:
        eventually(lambda: loop.rounds)
        beat = eventually(lambda: next((b for b in broker.seen(Beat) if b.next_run_ms), None))
        assert beat is not None
        assert beat.next_run_ms is not None
        assert 29_000 < beat.next_run_ms <= 30_000
        assert beat.state == "not the primary"
        assert beat.last_success_at is not None

    run(loop, script)


def test_an_idle_loop_keeps_beating_and_a_stuck_round_does_not(
    broker: StubBroker, run: Run
) -> None:
    """A beat is progress of the loop: a process that merely exists must fall silent."""
    proceed = threading.Event()

    def stuck(_: Desk) -> Outcome:
        proceed.wait(10)
        return Outcome(next_in_ms=60_000)

    loop = FakeLoop(stuck, period_ms=1)

    def script() -> None:
        eventually(lambda: loop.rounds)
        eventually(lambda: broker.seen(Beat))
        throughout(lambda: len(loop.rounds) == 1, for_s=0.1)
        silent_at = len(broker.seen(Beat))
        throughout(lambda: len(broker.seen(Beat)) == silent_at, for_s=0.3)
        proceed.set()
        eventually(lambda: len(broker.seen(Beat)) >= silent_at + 5)

    run(loop, script)


def test_a_promise_of_silence_is_capped(
    broker: StubBroker, settings: Settings, paths: Paths
) -> None:
    """No bug in a loop can buy it an hour of not being missed."""

    def greedy(desk: Desk) -> Outcome:
        desk.beat(3_600_000)
        desk.beat(10_000)
        return Outcome()

    _once(broker, FakeLoop(greedy), settings, paths)

    promises = [beat.within_ms for beat in broker.seen(Beat)]
    assert max(promises) == SILENCE_MS_MAX
    assert any(10_000 <= promise < 20_000 for promise in promises)


def test_a_long_question_is_announced_before_it_is_asked(
    broker: StubBroker, settings: Settings, paths: Paths
) -> None:
    """Or the watchdog would kill the worker for the broker's slowness."""

    def ask(desk: Desk) -> Outcome:
        desk.ask(ReleaseLease(lease_id=1), Ack, timeout_ms=30_000)
        return Outcome()

    _once(broker, FakeLoop(ask), settings, paths)

    calls = [call.request for call in broker.calls]
    before = calls[: calls.index(ReleaseLease(lease_id=1))]
    assert max(beat.within_ms for beat in before if isinstance(beat, Beat)) >= 30_000


def test_waiting_at_the_desk_beats_and_wakes_for_its_descriptors(
    broker: StubBroker, settings: Settings, paths: Paths
) -> None:
    """A hook's pipe or an mDNS socket is waited for without falling silent."""
    reader, writer = os.pipe()
    found: list[object] = []

    def patient(desk: Desk) -> Outcome:
        found.append(desk.wait(300, reader))
        os.write(writer, b"x")
        found.append(desk.wait(5000, reader))
        return Outcome()

    _once(broker, FakeLoop(patient), settings, paths)
    os.close(reader)
    os.close(writer)

    assert found == [[], [reader]]
    assert len(broker.seen(Beat)) >= 5


def test_a_stop_signal_ends_a_wait_at_the_desk(broker: StubBroker, run: Run) -> None:
    """The loop sees `stopping` and hands its work back."""
    seen: list[bool] = []

    def patient(desk: Desk) -> Outcome:
        desk.wait(20_000)
        seen.append(desk.stopping())
        return Outcome()

    loop = FakeLoop(patient, period_ms=1)
    run(loop, _after(lambda: loop.rounds))

    assert seen == [True]
    assert boottime_ms() - loop.rounds[0] < 2000
    eventually(lambda: broker.seen(Goodbye))


def test_a_restarted_broker_gets_ready_from_an_idle_worker_by_itself(
    paths: Paths, run: Run
) -> None:
    """The registry is complete again at once, and the loop tells again what the broker forgot."""
    loop = FakeLoop(lambda _: Outcome(next_in_ms=60_000), period_ms=1)
    stub = StubBroker(paths, beat_every_ms=1000)

    def script() -> None:
        eventually(lambda: loop.rounds)
        stub.stop()
        throughout(lambda: len(loop.rounds) == 1, for_s=1.2)  # a beat notices the loss
        stub.start()
        eventually(lambda: stub.registered, within_s=0.6)
        eventually(lambda: len(loop.rounds) == 2, within_s=3)

    with stub:
        run(loop, script)


def test_waiting_for_the_broker_is_said_once(
    settings: Settings,
    paths: Paths,
    run: Run,
    log_lines: Callable[[], list[str]],
) -> None:
    """A node that is half up must not fill its disk with the news."""
    broker = StubBroker(paths)
    loop = FakeLoop(period_ms=1)

    def script() -> None:
        throughout(lambda: not loop.rounds, for_s=2.3)
        broker.start()
        eventually(lambda: loop.rounds)

    try:
        run(loop, script)
    finally:
        broker.stop()
    assert log_lines().count("broker.awaited") == 1
    assert log_lines().count("process.ready") == 1
    assert settings.node.name == "atlas"


def test_a_bug_in_a_round_ends_the_process(
    broker: StubBroker, settings: Settings, paths: Paths
) -> None:
    """Only expected trouble is retried; anything else is for the outermost frame."""

    def bug(_: Desk) -> Outcome:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_loop(FakeLoop(bug), settings, paths, once=True)
    assert not broker.seen(Goodbye)


def test_once_without_a_broker_ends_with_a_temporary_failure(
    settings: Settings, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not wait for ever."""
    monkeypatch.setattr("workers.process.ONCE_PATIENCE_MS", 200)
    loop = FakeLoop()
    assert run_loop(loop, settings, paths, once=True) == Exit.TEMPORARY
    assert not loop.rounds


def test_the_desk_asks_who_this_node_is(
    broker: StubBroker, settings: Settings, paths: Paths
) -> None:
    """The role gate of every loop."""
    hosts: list[str] = []

    def gate(desk: Desk) -> Outcome:
        hosts.append(desk.node().host)
        return Outcome()

    run_loop(FakeLoop(gate), settings, paths, once=True)
    assert hosts == ["stub"]
    assert len(broker.seen(GetNode)) == 1
