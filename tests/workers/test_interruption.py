"""Waiting that ends when another round is wanted."""

from collections.abc import Iterator

import pytest

from broker.clock import boottime_ms
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.events import BundleMoved, RoleMoved, SyncWanted
from broker.wire.ids import Service
from tests.stub_broker import StubBroker
from tests.support import eventually
from tests.workers.loop_desk import StopByHand, desk_at
from workers.interruption import Interruption
from workers.process import Desk


@pytest.fixture
def broker(paths: Paths) -> Iterator[StubBroker]:
    """A broker that publishes."""
    with StubBroker(paths) as stub:
        yield stub


@pytest.fixture
def stop() -> StopByHand:
    """The stop signal of the desk."""
    return StopByHand()


@pytest.fixture
def desk(broker: StubBroker, paths: Paths, settings: Settings, stop: StopByHand) -> Iterator[Desk]:
    """The desk of a loop that wakes for two kinds of events."""
    assert broker.boot_id
    wakes = (RoleMoved, SyncWanted)
    with desk_at(paths, settings, Service.ROSTER_SYNC, stop, wakes) as found:
        heard = Interruption(found)
        broker.publish_until(SyncWanted(), lambda: came(heard))
        yield found


def came(vigil: Interruption) -> bool:
    """Return whether another round is wanted, after waiting a little."""
    vigil.wait(20)
    return vigil.came


def test_an_event_of_the_loop_ends_the_wait(desk: Desk, broker: StubBroker) -> None:
    """What the round was planned for may be over."""
    vigil = Interruption(desk)
    broker.publish(RoleMoved("standby", 4))

    eventually(lambda: came(vigil))

    assert vigil.stopping()
    assert not desk.stopping()


def test_an_event_of_others_does_not(desk: Desk, broker: StubBroker) -> None:
    """Another loop's news are no reason to break off."""
    vigil = Interruption(desk)
    broker.publish(BundleMoved(9))

    vigil.wait(100)

    assert not vigil.stopping()


def test_patience_lets_the_living_answer_first(desk: Desk, broker: StubBroker) -> None:
    """Events in a row must not make every round too short for anybody."""
    vigil = Interruption(desk, patience_ms=300)
    broker.publish(SyncWanted())
    eventually(lambda: came(vigil))
    assert not vigil.stopping()
    began_ms = boottime_ms()

    vigil.wait(10_000)

    assert vigil.stopping()
    assert boottime_ms() - began_ms < 400


def test_another_broker_ends_the_wait(desk: Desk, broker: StubBroker) -> None:
    """It knows nothing of the plan that this round follows."""
    vigil = Interruption(desk)
    broker.restart()

    eventually(lambda: came(vigil))


def test_a_stop_ends_the_wait(desk: Desk, stop: StopByHand) -> None:
    """As with the desk itself, and without patience."""
    vigil = Interruption(desk, patience_ms=10_000)
    stop.ask()

    vigil.wait(10_000)

    assert vigil.stopping()
    assert not vigil.came
