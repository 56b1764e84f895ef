"""What a restored node asks at the enrol ports of others, with real TLS and no certificate."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.errors import BundleRejectedError
from broker.runtime.events import EventName
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.backup import CollectPlan, CollectSource, NoteCollected, PlanCollect
from broker.wire.base import Reply, Request
from broker.wire.codec import fault_of
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.node import GetNode
from broker.wire.replica import PlanSync, SyncPlan
from tests.stub_broker import StubBroker
from tests.workers.fake_node import FakeNode
from tests.workers.loop_desk import desk_at, logged, node_in_mesh, peer_session, write_membership
from tests.workers.small_ca import SmallCA
from workers.process import Desk
from workers.roster_sync.collect import CollectErrand
from workers.roster_sync.loop import RosterSyncLoop

PATH = ("GET", "/v1/bundle")


def source_of(node: FakeNode, host: str) -> CollectSource:
    """Return where the broker says that a member is."""
    doors = node.endpoint()
    return CollectSource(host, doors.addresses, doors.mesh_port, doors.server_name)


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The CA of the mesh."""
    return SmallCA()


@pytest.fixture
def member(ca: SmallCA) -> Iterator[FakeNode]:
    """The enrol port of a member: it asks for no certificate."""
    with FakeNode(ca, {PATH: lambda _: b"a bundle"}, host="node-m", mutual=False) as node:
        yield node


@pytest.fixture
def noted() -> list[NoteCollected]:
    """What was handed in."""
    return []


@pytest.fixture
def broker(
    paths: Paths, ca: SmallCA, member: FakeNode, noted: list[NoteCollected]
) -> Iterator[StubBroker]:
    """The broker of a restored node, which has a membership and no certificate."""
    write_membership(paths, pin=ca.pin, root_pem=ca.root_pem)

    def note(request: Any) -> Reply:
        noted.append(request)
        return Ack()

    gone = CollectSource("node-x", ("127.0.0.1",), 1, "node-x.home.internal")
    plan = CollectPlan((source_of(member, "node-m"), gone))
    answers: dict[type[Request], Callable[[Any], Reply | None]] = {
        GetNode: lambda _: node_in_mesh(),
        PlanSync: lambda _: SyncPlan("collect"),
        PlanCollect: lambda _: plan,
        NoteCollected: note,
    }
    with StubBroker(paths, answers) as stub:
        yield stub


@pytest.fixture
def desk(broker: StubBroker, paths: Paths, settings: Settings) -> Iterator[Desk]:
    """Where the errand works."""
    assert broker.boot_id
    with desk_at(paths, settings, Service.ROSTER_SYNC) as found:
        yield found


def test_a_node_without_a_certificate_collects_from_who_answers(
    desk: Desk, noted: list[NoteCollected]
) -> None:
    """A dead member costs the living one nothing, and is told as silent."""
    outcome = CollectErrand().run(desk)
    assert {note.host: note.bundle for note in noted} == {"node-m": b"a bundle", "node-x": b""}
    assert "1 of 2" in outcome.state
    assert outcome.next_in_ms is not None


def test_whoever_answers_under_another_name_is_silent(
    desk: Desk, broker: StubBroker, member: FakeNode, noted: list[NoteCollected]
) -> None:
    """The address in a backup may be somebody else's by now."""
    doors = member.endpoint()
    wrong = CollectSource("node-y", doors.addresses, doors.mesh_port, "node-y.home.internal")
    broker.answers[PlanCollect] = lambda _: CollectPlan((wrong,))
    CollectErrand().run(desk)
    assert [(note.host, note.bundle) for note in noted] == [("node-y", b"")]


def test_a_bundle_that_the_broker_does_not_believe_is_logged_and_the_loop_goes_on(
    desk: Desk, broker: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """One lying member must not stop the questions to the others."""
    caplog.set_level(logging.DEBUG, "certmesh")
    broker.answers[NoteCollected] = lambda _: fault_of(BundleRejectedError("not ours"))
    outcome = CollectErrand().run(desk)
    assert "0 of 2" in outcome.state
    reasons = [line["reason"] for line in logged(caplog, EventName.ROSTER_REJECTED)]
    assert any("not ours" in reason for reason in reasons)


def test_the_loop_collects_when_the_broker_plans_it(
    desk: Desk, settings: Settings, noted: list[NoteCollected]
) -> None:
    """And comes back within a second or so, not after its usual minutes."""
    outcome = RosterSyncLoop(settings, peer_session).round(desk)
    assert len(noted) == 2
    assert outcome.next_in_ms is not None
    assert outcome.next_in_ms <= 1_000
