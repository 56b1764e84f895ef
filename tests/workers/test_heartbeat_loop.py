"""The heartbeat loop over real mutual TLS, against a stub broker."""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from broker.clock import boottime_ms, wall_s
from broker.errors import NotAMemberError, RevokedError
from broker.runtime.duration import Duration
from broker.runtime.events import EventName
from broker.runtime.paths import Paths
from broker.runtime.settings import Heartbeat, Settings
from broker.wire.base import Reply, Request
from broker.wire.control import Ack
from broker.wire.events import RoleMoved
from broker.wire.ids import Service
from broker.wire.mesh_api import HeartbeatBody
from broker.wire.node import Endpoint, GetNode
from broker.wire.roster import HeartbeatAnswer, HeartbeatPlan, NoteHeartbeat, PrepareHeartbeat
from tests.stub_broker import StubBroker, idle_node
from tests.support import eventually
from tests.workers.fake_node import FakeNode, Table, Visit
from tests.workers.loop_desk import (
    GOSSIP,
    PIN,
    desk_at,
    endpoint,
    enrol,
    logged,
    node_in_mesh,
    peer_session,
    run_module,
)
from tests.workers.small_ca import SmallCA
from workers.heartbeat.loop import MISMATCH, HeartbeatLoop, deadline_ms
from workers.peer import PeerSession
from workers.process import Desk, Outcome


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def primary(ca: SmallCA) -> Iterator[FakeNode]:
    """The mesh port of node-a."""
    table = {("POST", "/v1/heartbeat"): lambda _: answer()}
    with FakeNode(ca, table, host="node-a", mutual=True) as node:
        yield node


@pytest.fixture
def broker(paths: Paths, ca: SmallCA, primary: FakeNode) -> Iterator[StubBroker]:
    """The broker of node-b."""
    enrol(paths, ca)
    answers: dict[type[Request], Callable[[Any], Reply | None]] = {
        GetNode: lambda _: node_in_mesh(),
        PrepareHeartbeat: lambda _: plan(primary.endpoint()),
        NoteHeartbeat: lambda _: Ack(),
    }
    with StubBroker(paths, answers) as stub:
        yield stub


@pytest.fixture
def desk(broker: StubBroker, paths: Paths, settings: Settings) -> Iterator[Desk]:
    """Where the loop works."""
    assert broker.boot_id
    with desk_at(paths, settings, Service.HEARTBEAT, wakes=HeartbeatLoop.wakes) as found:
        yield found


@pytest.fixture
def loop(settings: Settings) -> HeartbeatLoop:
    """The loop under test."""
    return HeartbeatLoop(settings, peer_session)


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "certmesh")


def plan(*targets: Endpoint, pin: str = PIN) -> HeartbeatPlan:
    """Return what the broker says."""
    return HeartbeatPlan(
        targets=targets,
        pin=pin,
        served_serial="0a",
        served_not_after=None,
        served="served",
        endpoint=endpoint("node-b"),
        bundle_sequence=7,
        term=3,
        gossip=GOSSIP,
    )


def answer(*, valid: bool = True, skew_s: int = 0, next_ms: int = 9_000) -> HeartbeatAnswer:
    """Return what the primary says."""
    return HeartbeatAnswer(
        valid=valid,
        primary=endpoint("node-a"),
        term=3,
        bundle_sequence=8,
        clock=wall_s() + skew_s,  # type: ignore[arg-type]  # whole seconds of wall time
        next_beat_ms=next_ms,
        gossip=GOSSIP,
    )


def dead_port() -> Endpoint:
    """Return a key holder whose port nobody listens on."""
    return endpoint("node-x", port=9)


def test_the_beat_carries_what_is_served_and_its_answer_reaches_the_broker(
    loop: HeartbeatLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Members learn of a new primary or bundle at once."""
    outcome = loop.round(desk)

    (visit,) = primary.seen("/v1/heartbeat")
    sent = msgspec.json.decode(visit.body, type=HeartbeatBody)
    assert (sent.pin, sent.served_serial, sent.bundle_sequence) == (PIN, "0a", 7)
    assert abs(sent.clock - wall_s()) <= 2
    assert visit.peer is not None
    (note,) = broker.seen(NoteHeartbeat)
    assert (note.host, note.answer.bundle_sequence) == ("node-a", 8)
    assert outcome.error == ""
    assert outcome.next_in_ms is not None
    assert 8_000 < outcome.next_in_ms <= 9_000
    assert [line["host"] for line in logged(caplog, EventName.HEARTBEAT_ANSWERED)] == ["node-a"]
    assert {record.levelname for record in caplog.records} == {"DEBUG"}


def test_the_newest_beats_are_carried_to_every_key_holder_and_back(
    loop: HeartbeatLoop, desk: Desk, broker: StubBroker, primary: FakeNode, ca: SmallCA
) -> None:
    """A member is a witness: it reaches a primary that the standbys have lost."""
    table: Table = {("POST", "/v1/heartbeat"): lambda _: answer()}
    with FakeNode(ca, table, host="node-s", mutual=True) as standby:
        broker.answers[PrepareHeartbeat] = lambda _: plan(primary.endpoint(), standby.endpoint())
        outcome = loop.round(desk)

    for holder in (primary, standby):
        (visit,) = holder.seen("/v1/heartbeat")
        assert msgspec.json.decode(visit.body, type=HeartbeatBody).gossip == GOSSIP
    notes = {note.host: note.answer.gossip for note in broker.seen(NoteHeartbeat)}
    assert notes == {"node-a": GOSSIP, "node-s": GOSSIP}
    assert outcome.state == "2 of 2 key holders answered"


def test_an_answer_is_noted_while_a_dead_key_holder_is_still_waited_for(
    desk: Desk, broker: StubBroker, primary: FakeNode, ca: SmallCA, settings: Settings
) -> None:
    """It carries the beats of the new primary, and a clock to compare."""
    gate = threading.Event()
    table: Table = {("POST", "/v1/heartbeat"): lambda _: gate.wait(20) and None}
    loop = HeartbeatLoop(settings, peer_session)
    with FakeNode(ca, table, host="node-x", mutual=True) as dead:
        broker.answers[PrepareHeartbeat] = lambda _: plan(dead.endpoint(), primary.endpoint())
        thread = threading.Thread(target=lambda: loop.round(desk), daemon=True)
        thread.start()
        eventually(lambda: broker.seen(NoteHeartbeat))
        assert thread.is_alive()
        gate.set()
        eventually(lambda: not thread.is_alive())


def test_a_moved_role_is_told_at_once_also_in_the_middle_of_a_round(
    desk: Desk, broker: StubBroker, primary: FakeNode, ca: SmallCA, settings: Settings
) -> None:
    """The next beat goes to the key holders of the new term; the dead one is not waited for."""
    gate = threading.Event()
    table: Table = {("POST", "/v1/heartbeat"): lambda _: gate.wait(20) and None}
    loop = HeartbeatLoop(settings, lambda *known: PeerSession(*known, timeout_s=10))
    outcomes: list[Outcome] = []
    with FakeNode(ca, table, host="node-x", mutual=True) as dead:
        broker.answers[PrepareHeartbeat] = lambda _: plan(dead.endpoint(), primary.endpoint())
        thread = threading.Thread(target=lambda: outcomes.append(loop.round(desk)), daemon=True)
        thread.start()
        eventually(lambda: dead.visits and broker.seen(NoteHeartbeat))
        began_ms = boottime_ms()

        broker.publish_until(RoleMoved("member", 4), lambda: not thread.is_alive())

        assert boottime_ms() - began_ms < 1500
        gate.set()
    assert outcomes[0].next_in_ms == 0
    assert outcomes[0].error == ""


def test_heartbeat_does_not_ask_itself(
    loop: HeartbeatLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """Defect 1: the plan names this node by mistake; nothing is sent to it."""
    broker.answers[GetNode] = lambda _: node_in_mesh("node-a")

    outcome = loop.round(desk)

    assert primary.visits == []
    assert "no endpoint" in outcome.state


def test_another_ca_is_a_warning_and_an_error(
    loop: HeartbeatLoop, desk: Desk, primary: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    """`valid: false` means that this node pins another CA."""
    primary.table["POST", "/v1/heartbeat"] = lambda _: answer(valid=False)

    outcomes = [loop.round(desk) for _ in range(3)]

    assert {outcome.error for outcome in outcomes} == {MISMATCH}
    (line,) = logged(caplog, EventName.HEARTBEAT_MISMATCHED)
    assert line["reason"] == "CA fingerprint mismatch"


def test_a_dead_key_holder_is_logged_once_and_delays_nobody(
    loop: HeartbeatLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each reason is one line, however often it repeats."""
    broker.answers[PrepareHeartbeat] = lambda _: plan(dead_port(), primary.endpoint())

    outcomes = [loop.round(desk) for _ in range(3)]

    assert {(o.error, o.state) for o in outcomes} == {("", "1 of 2 key holders answered")}
    assert len(primary.seen("/v1/heartbeat")) == 3
    assert [line["host"] for line in logged(caplog, EventName.HEARTBEAT_FAILED)] == ["node-x"]


def test_a_hanging_key_holder_costs_its_deadline_and_no_more(
    desk: Desk, broker: StubBroker, primary: FakeNode, ca: SmallCA, settings: Settings
) -> None:
    """The others have been told long before it is over (row 33, P10)."""
    fast = Heartbeat(interval=Duration(1000))
    loop = HeartbeatLoop(msgspec.structs.replace(settings, heartbeat=fast), peer_session)
    gate = threading.Event()
    table: Table = {("POST", "/v1/heartbeat"): lambda _: gate.wait(10) and None}
    with FakeNode(ca, table, host="node-x", mutual=True) as hanging:
        broker.answers[PrepareHeartbeat] = lambda _: plan(hanging.endpoint(), primary.endpoint())
        started_ms = boottime_ms()
        outcome = loop.round(desk)
        took_ms = boottime_ms() - started_ms
        gate.set()

    assert took_ms < 2_000
    assert outcome.state == "1 of 2 key holders answered"


def test_when_nobody_answers_the_round_failed(
    loop: HeartbeatLoop, desk: Desk, broker: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """`certmesh ps` shows why; the pace stays the setting's."""
    broker.answers[PrepareHeartbeat] = lambda _: plan(dead_port())

    outcome = loop.round(desk)

    assert outcome.error.startswith("node-x: ")
    assert outcome.state == "0 of 1 key holders answered"
    assert outcome.next_in_ms is not None
    assert outcome.next_in_ms <= 10_000
    assert logged(caplog, EventName.HEARTBEAT_FAILED)


def test_a_refusal_is_logged_in_the_peers_words(
    loop: HeartbeatLoop, desk: Desk, primary: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    """A revoked node is told so."""

    def refuse(_: Visit) -> None:
        raise RevokedError("this member was revoked")

    primary.table["POST", "/v1/heartbeat"] = refuse

    outcome = loop.round(desk)

    assert "this member was revoked" in outcome.error
    assert logged(caplog, EventName.HEARTBEAT_FAILED)[0]["reason"] == "this member was revoked"


def test_a_key_holder_that_comes_back_is_mentioned(
    loop: HeartbeatLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The log tells the end of a trouble as well as its beginning."""
    gone = msgspec.structs.replace(primary.endpoint(), mesh_port=9)
    broker.answers[PrepareHeartbeat] = lambda _: plan(gone)
    loop.round(desk)
    broker.answers[PrepareHeartbeat] = lambda _: plan(primary.endpoint())

    loop.round(desk)

    levels = [r.levelname for r in caplog.records if r.msg["event"] == "heartbeat.answered"]  # type: ignore[index]  # our records hold a dict
    assert levels == ["INFO"]


def test_an_answer_the_broker_does_not_want_harms_no_other(
    loop: HeartbeatLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """A key holder may have been removed a moment ago."""

    def refuse(_: NoteHeartbeat) -> Reply:
        raise NotAMemberError("node-a is no key holder")

    broker.answers[NoteHeartbeat] = refuse

    outcome = loop.round(desk)

    assert primary.visits
    assert "no key holder" in outcome.error


def test_a_skewed_clock_is_detected(
    loop: HeartbeatLoop, desk: Desk, primary: FakeNode, caplog: pytest.LogCaptureFixture
) -> None:
    """Certificates are judged by clocks (P13)."""
    primary.table["POST", "/v1/heartbeat"] = lambda _: answer(skew_s=-60)

    for _ in range(2):
        loop.round(desk)

    (line,) = logged(caplog, EventName.CLOCK_SKEW_DETECTED)
    assert 58 <= line["ahead_s"] <= 62


def test_without_targets_only_a_follower_complains(
    loop: HeartbeatLoop, desk: Desk, broker: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """The primary has nobody to beat to, and that is fine."""
    broker.answers[PrepareHeartbeat] = lambda _: plan()
    broker.answers[GetNode] = lambda _: node_in_mesh(role="primary")
    assert loop.round(desk).error == ""
    assert logged(caplog, EventName.HEARTBEAT_FAILED) == []

    broker.answers[GetNode] = lambda _: node_in_mesh(role="member")
    for _ in range(2):
        assert loop.round(desk).error == ""
    assert len(logged(caplog, EventName.HEARTBEAT_FAILED)) == 1


def test_without_a_pin_nothing_is_sent(
    loop: HeartbeatLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """There would be nothing to compare."""
    broker.answers[PrepareHeartbeat] = lambda _: plan(primary.endpoint(), pin="")

    assert "no pin" in loop.round(desk).state
    assert primary.visits == []


def test_a_node_of_no_mesh_idles(loop: HeartbeatLoop, desk: Desk, broker: StubBroker) -> None:
    """The role comes from the roster; without one every loop waits."""
    broker.answers[GetNode] = lambda _: idle_node()

    assert loop.round(desk).state == "no mesh"
    assert broker.seen(PrepareHeartbeat) == []


def test_the_deadline_fits_the_interval() -> None:
    """A dead key holder must not eat the next beat."""
    assert [deadline_ms(ms) for ms in (500, 3_000, 10_000)] == [1_000, 3_000, 5_000]


def test_one_round_as_a_process(broker: StubBroker, paths: Paths, primary: FakeNode) -> None:
    """`python -m workers.heartbeat SETTINGS --once` beats and exits 0."""
    process = run_module("workers.heartbeat", paths, "--once")
    output, _ = process.communicate(timeout=20)

    assert process.returncode == 0, output
    assert len(primary.seen("/v1/heartbeat")) == 1
    assert broker.seen(NoteHeartbeat)
