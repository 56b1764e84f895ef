"""The failover loop: probes over real mutual TLS, and the process with real mDNS."""

import logging
import secrets
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.clock import boottime_ms
from broker.errors import CALockedError, UnavailableError
from broker.runtime.duration import Duration
from broker.runtime.events import EventName
from broker.runtime.paths import Paths
from broker.runtime.settings import Discovery, Failover, Settings
from broker.wire.base import Reply, Request
from broker.wire.claims import Gossip
from broker.wire.control import Ack
from broker.wire.events import RoleMoved
from broker.wire.failover import (
    Announcement,
    FailoverPlan,
    HelloAnswer,
    Hint,
    PlanFailover,
    ReportSightings,
    Sighting,
)
from broker.wire.ids import Service
from broker.wire.mesh_api import HelloBody
from broker.wire.node import Endpoint, GetNode, Membership
from tests.stub_broker import StubBroker, idle_node
from tests.support import eventually
from tests.workers.fake_node import FakeNode, Table, Visit
from tests.workers.loop_desk import (
    GOSSIP,
    PIN,
    claim_of,
    desk_at,
    endpoint,
    enrol,
    logged,
    node_in_mesh,
    peer_session,
    run_module,
)
from tests.workers.small_ca import SmallCA
from workers.failover.air import ZeroconfAir
from workers.failover.loop import FailoverLoop, deadline_ms
from workers.failover.radio import Radio
from workers.peer import PeerSession
from workers.process import Desk, Outcome

ANNOUNCEMENT = Announcement(
    instance="certmesh-ca-node-b",
    port=7642,
    addresses=("127.0.0.2",),
    server="node-b.local.",
    txt={"role": "primary", "fingerprint": PIN, "term": "3"},
)
OWN = claim_of("node-b", role="standby", serving=False)
SPOOF = Hint("certmesh-ca-node-a", ("127.0.0.1",), 7642, "primary", PIN, "99")


def plan(*targets: Endpoint, announce: Announcement | None = None) -> FailoverPlan:
    """Return what the broker says."""
    return FailoverPlan(
        announce=announce,
        targets=targets,
        discovery=True,
        pin=PIN,
        host="node-b",
        claim=OWN,
        gossip=GOSSIP,
    )


def answer(host: str = "node-a") -> HelloAnswer:
    """Return what a primary says of itself, and what it has heard."""
    return HelloAnswer(claim_of(host), GOSSIP)


def answer_with(reply: Reply, _: Request) -> Reply:
    """Answer always the same."""
    return reply


class HintingRadio(Radio):
    """A radio that heard exactly this, and opens nothing."""

    def __init__(self, *heard: Hint) -> None:
        super().__init__(_no_air, lease_ms=1000)
        self.heard = heard
        self.wanted: list[Announcement | None] = []

    def want(self, announcement: Announcement | None, pin: str) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Note it."""
        assert pin in ("", PIN)
        self.wanted.append(announcement)

    def hints(self) -> tuple[Hint, ...]:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Return what the test said."""
        return self.heard


def _no_air(_: Callable[[], None]) -> Any:
    raise AssertionError("nothing is opened here")


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def primary(ca: SmallCA) -> Iterator[FakeNode]:
    """The mesh port of node-a."""
    with FakeNode(
        ca, {("POST", "/v1/hello"): lambda _: answer()}, host="node-a", mutual=True
    ) as node:
        yield node


@pytest.fixture
def broker(paths: Paths, ca: SmallCA, primary: FakeNode) -> Iterator[StubBroker]:
    """The broker of node-b, a standby."""
    enrol(paths, ca)
    answers: dict[type[Request], Callable[[Any], Reply | None]] = {
        GetNode: lambda _: node_in_mesh(role="standby"),
        PlanFailover: lambda _: plan(primary.endpoint()),
        ReportSightings: lambda _: Ack(),
    }
    with StubBroker(paths, answers) as stub:
        yield stub


@pytest.fixture
def desk(broker: StubBroker, paths: Paths, settings: Settings) -> Iterator[Desk]:
    """Where the loop works."""
    assert broker.boot_id
    with desk_at(paths, settings, Service.FAILOVER, wakes=FailoverLoop.wakes) as found:
        yield found


@pytest.fixture
def quick(settings: Settings) -> Settings:
    """Settings with a tick of a second."""
    return msgspec.structs.replace(settings, failover=Failover(tick=Duration(1000)))


@pytest.fixture
def loop(quick: Settings) -> FailoverLoop:
    """The loop under test, without mDNS."""
    return FailoverLoop(quick, None, peer_session)


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "certmesh")


def report(broker: StubBroker) -> ReportSightings:
    """Return the newest report."""
    return broker.seen(ReportSightings)[-1]


def test_a_probe_over_mutual_tls_becomes_a_sighting(
    loop: FailoverLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """The claim of a verified connection, with the address at which it was made."""
    outcome = loop.round(desk)

    (visit,) = primary.seen("/v1/hello")
    assert msgspec.json.decode(visit.body, type=HelloBody) == HelloBody(OWN, GOSSIP)
    assert visit.peer is not None
    (seen,) = report(broker).sightings
    assert seen == Sighting("node-a", "127.0.0.1", claim_of(), "", GOSSIP)
    assert outcome.error == ""
    assert "1 of 1 key holders answer" in outcome.state
    assert outcome.next_in_ms is not None
    assert outcome.next_in_ms <= 1000


def test_one_spoofed_txt_record_is_never_a_sighting(
    quick: Settings, desk: Desk, broker: StubBroker
) -> None:
    """Defect 8: `role=primary` with our public fingerprint, and nobody who can prove it.

    (row 23, P8)
    """
    broker.answers[PlanFailover] = lambda _: plan()
    loop = FailoverLoop(quick, HintingRadio(SPOOF), peer_session)

    loop.round(desk)

    assert report(broker).sightings == ()
    assert report(broker).hints == (SPOOF,)


def test_an_impostor_where_a_hint_points_proves_nothing(
    quick: Settings, desk: Desk, broker: StubBroker, ca: SmallCA
) -> None:
    """Defect 8, with a listener of another CA, and with a member that is not the key holder.

    (row 24, P8)
    """
    for signer, name in ((SmallCA("evil"), "node-a"), (ca, "node-m")):
        table: Any = {("POST", "/v1/hello"): lambda _: answer()}
        with FakeNode(signer, table, host=name, mutual=False) as impostor:
            dead = endpoint("node-a", port=impostor.port, address="127.0.0.77")
            broker.answers[PlanFailover] = partial(answer_with, plan(dead))
            loop = FailoverLoop(quick, HintingRadio(SPOOF), peer_session)
            loop.round(desk)
            (seen,) = report(broker).sightings
            assert seen.claim is None
            assert impostor.seen("/v1/hello") == []


def test_a_hint_finds_a_key_holder_that_has_moved(
    quick: Settings, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """The address of the roster is dead, the one of mDNS proves itself."""
    moved = msgspec.structs.replace(primary.endpoint(), addresses=("127.0.0.77",))
    broker.answers[PlanFailover] = lambda _: plan(moved)
    loop = FailoverLoop(quick, HintingRadio(SPOOF), peer_session)

    loop.round(desk)

    (seen,) = report(broker).sightings
    assert (seen.claim, seen.address) == (claim_of(), "127.0.0.1")


def test_all_targets_are_probed_at_once(
    loop: FailoverLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Dead key holders delay nobody, and each is one line in the log."""
    dead = [endpoint(f"node-{n}", port=9, address="127.0.0.1") for n in "xyz"]
    broker.answers[PlanFailover] = lambda _: plan(*dead, primary.endpoint())
    started_ms = boottime_ms()

    for _ in range(2):
        loop.round(desk)

    assert boottime_ms() - started_ms < 2000
    claims = {seen.host: seen.claim for seen in report(broker).sightings}
    assert claims == {"node-x": None, "node-y": None, "node-z": None, "node-a": claim_of()}
    unreachable = [line["host"] for line in logged(caplog, EventName.PEER_UNREACHABLE)]
    assert sorted(unreachable) == ["node-x", "node-y", "node-z"]


def test_a_refusal_is_reported_in_the_peers_words(
    loop: FailoverLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And its recovery is mentioned."""

    def refuse(_: Visit) -> None:
        raise CALockedError("the CA is locked")

    primary.table["POST", "/v1/hello"] = refuse
    loop.round(desk)
    assert report(broker).sightings[0].error == "the CA is locked"

    primary.table["POST", "/v1/hello"] = lambda _: answer()
    loop.round(desk)
    assert [line["host"] for line in logged(caplog, EventName.PEER_REACHED)] == ["node-a"]


def test_a_claim_under_another_name_is_no_sighting(
    loop: FailoverLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """The certificate is that of node-a; whoever speaks there for another proves nothing."""
    primary.table["POST", "/v1/hello"] = lambda _: answer("node-z")

    loop.round(desk)

    (seen,) = report(broker).sightings
    assert (seen.host, seen.claim, seen.gossip) == ("node-a", None, Gossip())
    assert "answered as node-z" in seen.error


def test_a_node_with_nothing_to_claim_probes_nobody(
    quick: Settings, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """A member is no key holder; what it hears by mDNS is reported all the same."""
    mute = msgspec.structs.replace(plan(primary.endpoint()), claim=None)
    broker.answers[PlanFailover] = partial(answer_with, mute)

    outcome = FailoverLoop(quick, HintingRadio(SPOOF), peer_session).round(desk)

    assert primary.visits == []
    assert (report(broker).sightings, report(broker).hints) == ((), (SPOOF,))
    assert "nothing to claim" in outcome.state


def hanging(gate: threading.Event) -> Table:
    """Return the doors of a key holder that takes a question and says nothing."""
    return {("POST", "/v1/hello"): lambda _: gate.wait(20) and None}


def in_background(loop: FailoverLoop, desk: Desk) -> tuple[threading.Thread, list[Outcome]]:
    """Run a round in a thread; the desk is its own meanwhile."""
    outcomes: list[Outcome] = []
    thread = threading.Thread(target=lambda: outcomes.append(loop.round(desk)), daemon=True)
    thread.start()
    return thread, outcomes


def test_a_new_role_does_not_wait_for_a_dead_key_holder(
    desk: Desk, broker: StubBroker, primary: FakeNode, ca: SmallCA, settings: Settings
) -> None:
    """A promotion comes just when somebody is dead: the living hear of it at once."""
    gate = threading.Event()
    with FakeNode(ca, hanging(gate), host="node-x", mutual=True) as dead:
        broker.answers[PlanFailover] = lambda _: plan(dead.endpoint(), primary.endpoint())
        loop = FailoverLoop(settings, None, peer_session_of_ten_seconds)
        thread, outcomes = in_background(loop, desk)
        eventually(lambda: dead.visits and primary.visits)

        began_ms = boottime_ms()
        broker.publish_until(RoleMoved("primary", 4), lambda: not thread.is_alive())
        took_ms = boottime_ms() - began_ms

        assert took_ms < 1500
        assert outcomes[0].next_in_ms == 0
        assert [(one.host, one.claim) for one in report(broker).sightings] == [
            ("node-a", claim_of())
        ]
        thread, _ = in_background(loop, desk)
        eventually(lambda: len(dead.visits) == 2)
        gate.set()
        eventually(lambda: not thread.is_alive())


def test_a_round_that_was_cut_short_calls_nobody_dead(
    desk: Desk,
    broker: StubBroker,
    ca: SmallCA,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Silence of a quarter of a second is no evidence."""
    gate = threading.Event()
    with FakeNode(ca, hanging(gate), host="node-x", mutual=True) as slow:
        broker.answers[PlanFailover] = lambda _: plan(slow.endpoint())
        loop = FailoverLoop(settings, None, peer_session_of_ten_seconds)
        thread, _ = in_background(loop, desk)
        eventually(lambda: slow.visits)
        broker.publish_until(RoleMoved("standby", 4), lambda: not thread.is_alive())
        gate.set()

    assert report(broker).sightings == ()
    assert logged(caplog, EventName.PEER_UNREACHABLE) == []


def peer_session_of_ten_seconds(paths: Paths, membership: Membership) -> PeerSession:
    """Open a session more patient than any round here."""
    return PeerSession(paths, membership, timeout_s=10)


def test_mdns_off_is_said_once_and_known_targets_are_still_probed(
    loop: FailoverLoop, desk: Desk, broker: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Not idle, unlike the reference: discovery is a convenience (row 22)."""
    outcomes = [loop.round(desk) for _ in range(3)]

    assert len(logged(caplog, EventName.DISCOVERY_DISABLED)) == 1
    assert "mDNS is off" in outcomes[-1].state
    assert report(broker).sightings[0].claim == claim_of()


def test_the_plans_announcement_is_what_is_wanted(
    quick: Settings, desk: Desk, broker: StubBroker
) -> None:
    """Announce while primary and unlocked; None means withdraw; no mesh means withdraw."""
    radio = HintingRadio()
    loop = FailoverLoop(quick, radio, peer_session)
    for announce in (ANNOUNCEMENT, None):
        broker.answers[PlanFailover] = partial(answer_with, plan(announce=announce))
        loop.round(desk)
    broker.answers[GetNode] = lambda _: idle_node()

    outcome = loop.round(desk)

    assert radio.wanted == [ANNOUNCEMENT, None, None]
    assert outcome.state == "no mesh"


def test_without_an_answer_of_the_broker_the_lease_is_not_renewed(
    quick: Settings, desk: Desk, broker: StubBroker
) -> None:
    """Rule 8 of the primary begins here: the radio withdraws what nobody renews."""

    def refuse(_: PlanFailover) -> Reply:
        raise UnavailableError("away")

    broker.answers[PlanFailover] = refuse
    radio = HintingRadio()

    with pytest.raises(UnavailableError):
        FailoverLoop(quick, radio, peer_session).round(desk)
    assert radio.wanted == []


def test_trouble_with_discovery_is_the_rounds_error(
    quick: Settings, desk: Desk, broker: StubBroker
) -> None:
    """Defect 10: `certmesh ps` shows a failed browse; probing goes on."""

    class Broken(HintingRadio):
        def trouble(self) -> str:  # type: ignore[explicit-override]  # typing.override is 3.12
            return "discovery failed: OSError: no multicast"

    outcome = FailoverLoop(quick, Broken(), peer_session).round(desk)

    assert "no multicast" in outcome.error
    assert report(broker).sightings[0].claim == claim_of()


def test_the_deadline_is_below_the_tick() -> None:
    """A round must end before the next one is due."""
    assert [deadline_ms(ms) for ms in (500, 1_000, 5_000, 60_000)] == [400, 800, 4_000, 4_000]


def test_one_round_as_a_process(broker: StubBroker, paths: Paths, primary: FakeNode) -> None:
    """`python -m workers.failover SETTINGS --once`, with mDNS off."""
    process = run_module("workers.failover", paths, "--once")
    output, _ = process.communicate(timeout=20)

    assert process.returncode == 0, output
    assert primary.seen("/v1/hello")
    assert report(broker).sightings[0].claim == claim_of()


@pytest.fixture
def discovery(paths: Paths) -> Discovery:
    """Real mDNS on loopback, in the settings file as well."""
    name = f"_cm{secrets.token_hex(4)}._tcp.local."
    Path(paths.settings).write_text(
        '[node]\nname = "node-b"\n[failover]\ntick = "200ms"\n'
        '[broker]\nworker_dead_after = "600ms"\n'
        f'[discovery]\ninterfaces = ["127.0.0.1"]\nservice = "{name}"\n'
    )
    return Discovery(interfaces=("127.0.0.1",), service=name)


@pytest.fixture
def listener(discovery: Discovery) -> Iterator[Radio]:
    """Another node's radio."""
    with Radio(lambda ring: ZeroconfAir(discovery, ring), lease_ms=60_000) as radio:
        radio.want(None, PIN)
        yield radio


def test_a_stopped_process_says_goodbye_and_is_gone_within_a_second(
    broker: StubBroker, paths: Paths, listener: Radio
) -> None:
    """The announcement is withdrawn on stop; others notice at once."""
    broker.answers[PlanFailover] = lambda _: plan(announce=ANNOUNCEMENT)
    process = run_module("workers.failover", paths)
    try:
        (hint,) = eventually(listener.hints, within_s=15)
        assert hint.instance == "certmesh-ca-node-b"
    finally:
        asked_ms = boottime_ms()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)

    assert process.returncode == 0, output
    assert boottime_ms() - asked_ms < 1500
    eventually(lambda: listener.hints() == ())


def test_a_process_whose_broker_is_gone_withdraws(
    broker: StubBroker, paths: Paths, listener: Radio
) -> None:
    """Longer than the liveness deadline without a broker: off the air; back with the broker."""
    broker.answers[PlanFailover] = lambda _: plan(announce=ANNOUNCEMENT)
    process = run_module("workers.failover", paths)
    try:
        eventually(listener.hints, within_s=15)
        broker.silent = True
        eventually(lambda: listener.hints() == (), within_s=10)
        broker.silent = False
        eventually(listener.hints, within_s=15)
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
    assert process.returncode == 0, output
