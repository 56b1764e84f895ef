"""Events: hints that never block and never break the listener."""

from broker.client import Subscription
from broker.runtime.paths import Paths
from broker.wire.codec import encode
from broker.wire.events import BundleMoved, RoleMoved, RosterMoved
from broker.wire.messages import AnyEvent
from tests.stub_broker import StubBroker
from tests.support import eventually


def _drain(events: Subscription) -> list[AnyEvent]:
    return list(iter(events.receive, None))


def _connect(broker: StubBroker, events: Subscription, event: AnyEvent) -> None:
    broker.publish_until(event, lambda: events.socket.poll(0))
    eventually(lambda: not _drain(events))


def test_only_the_wanted_kinds_arrive(paths: Paths) -> None:
    """A worker is not woken by what does not concern it."""
    with StubBroker(paths) as broker, Subscription(paths, (RosterMoved, BundleMoved)) as events:
        _connect(broker, events, RosterMoved(term=1, sequence=0))
        broker.publish(RoleMoved(role="primary", term=1))
        broker.publish(BundleMoved(bundle_sequence=9))
        eventually(lambda: events.socket.poll(0))
        assert _drain(events) == [BundleMoved(bundle_sequence=9)]


def test_garbage_is_skipped_and_the_next_event_still_arrives(paths: Paths) -> None:
    """Wrong version, broken body, missing frames, another topic's body."""
    with StubBroker(paths) as broker, Subscription(paths, (RosterMoved,)) as events:
        _connect(broker, events, RosterMoved(term=1, sequence=0))
        good = RosterMoved(term=1, sequence=5)
        broker.publish_raw([b"roster-moved"])
        broker.publish_raw([b"roster-moved", b"\x09", encode(good)[1]])
        broker.publish_raw([b"roster-moved", b"\x01", b"\xc1"])
        broker.publish(good)
        found = eventually(lambda: _drain(events))
        assert found == [good]


def test_receive_never_waits(paths: Paths) -> None:
    """Also without any broker."""
    with Subscription(paths, (RosterMoved,)) as events:
        assert events.receive() is None


def test_a_subscription_follows_the_broker_through_its_restart(paths: Paths) -> None:
    """Events come again from the next broker process."""
    with StubBroker(paths) as broker, Subscription(paths, (RosterMoved,)) as events:
        _connect(broker, events, RosterMoved(term=1, sequence=0))
        broker.restart()
        _connect(broker, events, RosterMoved(term=1, sequence=1))
