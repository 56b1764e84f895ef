"""The roster-sync loop of a standby, over real mutual TLS, against a stub broker."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from broker.clock import boottime_ms
from broker.errors import (
    CALockedError,
    ClaimRejectedError,
    ForbiddenError,
    ForkedError,
    KeyRejectedError,
    StorageError,
)
from broker.runtime.events import EventName
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.base import Reply, Request
from broker.wire.control import Ack
from broker.wire.events import RoleMoved, SyncWanted
from broker.wire.ids import Service
from broker.wire.node import Endpoint, GetNode
from broker.wire.replica import (
    AcceptBody,
    AdoptAnswer,
    AdoptBody,
    InstallKey,
    InstallPage,
    KeyPackage,
    Mark,
    NoteAdopted,
    PageInstalled,
    PlanSync,
    ReplicaBody,
    SyncPlan,
)
from broker.wire.roster import BundleInstalled, InstallBundle, SignedBundle
from tests.stub_broker import StubBroker
from tests.support import eventually
from tests.workers.fake_node import FakeNode, Page, Visit
from tests.workers.loop_desk import (
    StopByHand,
    desk_at,
    endpoint,
    enrol,
    logged,
    node_in_mesh,
    peer_session,
    run_module,
)
from tests.workers.small_ca import SmallCA
from workers.process import Desk
from workers.roster_sync.logic import EARLY_MS, PAGE_BYTES_MAX, SETTLE_MS, WAIT_MS
from workers.roster_sync.loop import RosterSyncLoop

EVENTS = ("POST", "/v1/replica/events")
ADOPT = ("POST", "/v1/replica/adopt")
ACCEPT = ("POST", "/v1/standby/accept")
READY = ("POST", "/v1/standby/ready")
BUNDLE = ("GET", "/v1/bundle")
LOCATOR = (Mark(9, "ab" * 32), Mark(0, "00" * 32))
PAGE = bytes(range(256)) * 3
"""What no JSON and no text could carry: the worker must not even look."""

PACKAGE = KeyPackage(sealed=b"\x00sealed\xff", term=3, giver="cd" * 32)


def follow(source: Endpoint | None, *, sequence: int = 9) -> SyncPlan:
    """Return the errand of a standby that has this many rows."""
    locator = (Mark(sequence, "ab" * 32), LOCATOR[-1])
    return SyncPlan(errand="follow", source=source, locator=locator)


def asked(primary: FakeNode) -> list[ReplicaBody]:
    """Return what the primary was asked for."""
    return [msgspec.json.decode(v.body, type=ReplicaBody) for v in primary.seen(EVENTS[1])]


class Gate:
    """A primary that waits for rows until the test lets it answer."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, _: Visit) -> bytes:
        """Answer when the gate opens."""
        self.open.wait(WAIT_MS / 1000)
        return PAGE


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def primary(ca: SmallCA) -> Iterator[FakeNode]:
    """The mesh port of node-a."""
    table: dict[tuple[str, str], Callable[[Visit], Any]] = {
        EVENTS: lambda _: PAGE,
        BUNDLE: lambda _: Page(status=304),
        ACCEPT: lambda _: PACKAGE,
        READY: lambda _: Ack(),
        ADOPT: lambda _: AdoptAnswer(adopted=2, known=1, conflicts=0),
    }
    with FakeNode(ca, table, host="node-a", mutual=True) as node:
        yield node


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Holds the primary's answers back."""
    found = Gate()
    yield found
    found.open.set()


@pytest.fixture
def broker(paths: Paths, ca: SmallCA, primary: FakeNode) -> Iterator[StubBroker]:
    """The broker of node-b, a standby."""
    enrol(paths, ca)
    answers: dict[type[Request], Callable[[Any], Reply | None]] = {
        GetNode: lambda _: node_in_mesh(role="standby"),
        PlanSync: lambda _: follow(primary.endpoint()),
        InstallPage: lambda _: PageInstalled(sequence=9, behind=0, rows=0),
        InstallBundle: lambda _: BundleInstalled(bundle_sequence=8, term=3, changed=True),
        InstallKey: lambda _: Ack(),
        NoteAdopted: lambda _: Ack(),
    }
    with StubBroker(paths, answers) as stub:
        yield stub


@pytest.fixture
def stop() -> StopByHand:
    """The stop signal of the desk."""
    return StopByHand()


@pytest.fixture
def desk(broker: StubBroker, paths: Paths, settings: Settings, stop: StopByHand) -> Iterator[Desk]:
    """Where the loop works."""
    assert broker.boot_id
    with desk_at(paths, settings, Service.ROSTER_SYNC, stop, RosterSyncLoop.wakes) as found:
        yield found


@pytest.fixture
def loop(settings: Settings) -> RosterSyncLoop:
    """The loop under test."""
    return RosterSyncLoop(settings, peer_session)


@pytest.fixture(autouse=True)
def _all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "certmesh")


def rejected(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the reasons in the log, in order."""
    return [line["reason"] for line in logged(caplog, EventName.ROSTER_REJECTED)]


def test_a_page_is_handed_to_the_broker_untouched(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """Whether it continues this journal is proved by hashes and a signature, not by the worker."""
    outcome = loop.round(desk)

    assert asked(primary) == [ReplicaBody(LOCATOR, SETTLE_MS)]
    assert broker.seen(InstallPage) == [InstallPage("node-a", PAGE, LOCATOR[0].hash)]
    assert (outcome.error, outcome.state) == ("", "in step with node-a")


def test_a_standby_never_syncs_from_itself(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """It would always be in step, and lose everything when it takes over."""
    broker.answers[GetNode] = lambda _: node_in_mesh("NODE-A", role="standby")

    outcome = loop.round(desk)

    assert primary.visits == []
    assert "no endpoint" in outcome.error
    assert outcome.next_in_ms == 1000


def test_a_lagging_standby_asks_again_at_once(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """With a new plan each time: only the broker knows what it has by now."""
    behind = iter([500, 200, 0])
    plans = iter(range(9, 99, 10))
    broker.answers[PlanSync] = lambda _: follow(primary.endpoint(), sequence=next(plans))
    broker.answers[InstallPage] = lambda _: PageInstalled(19, behind=next(behind), rows=10)

    outcomes = [loop.round(desk) for _ in range(3)]

    assert [outcome.next_in_ms for outcome in outcomes] == [0, 0, 0]
    assert outcomes[0].state == "500 rows behind node-a"
    assert [body.locator[0].sequence for body in asked(primary)] == [9, 19, 29]
    assert {body.wait_ms for body in asked(primary)} == {SETTLE_MS}
    assert len(primary.seen(BUNDLE[1])) == 1


def test_a_standby_that_has_everything_waits_for_more(
    loop: RosterSyncLoop, desk: Desk, primary: FakeNode
) -> None:
    """The primary's answer is the push: a row is here as soon as it is written."""
    loop.round(desk)
    loop.round(desk)

    assert [body.wait_ms for body in asked(primary)] == [SETTLE_MS, WAIT_MS]
    assert len(primary.seen(BUNDLE[1])) == 2


def test_the_bundle_of_a_standby_is_kept_new_as_well(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """Members ask a standby for it when the primary is dead."""
    signed = msgspec.msgpack.encode(SignedBundle(b"body", b"der", b"sig"))
    primary.table[BUNDLE] = lambda _: signed

    outcome = loop.round(desk)

    assert broker.seen(InstallBundle) == [InstallBundle(signed, "node-a")]
    assert [visit.path for visit in primary.seen(BUNDLE[1])] == ["/v1/bundle?after=7&term=3"]
    assert outcome.error == ""


def test_trouble_with_the_bundle_does_not_keep_the_rows_away(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Durable rows are what a takeover needs; the trouble stays visible."""
    primary.table[BUNDLE] = lambda _: b"<html>"

    outcome = loop.round(desk)

    assert broker.seen(InstallPage)
    assert outcome.error.startswith("node-a: bad format")
    assert outcome.state == "in step with node-a"
    assert rejected(caplog)[0].startswith("bad format")


def test_when_the_primary_is_silent_nobody_else_is_asked(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, ca: SmallCA
) -> None:
    """Rows come from whom the broker follows; another standby's may never have been shown."""
    with FakeNode(ca, {EVENTS: lambda _: PAGE}, host="node-s", mutual=True) as other:
        broker.answers[GetNode] = lambda _: node_in_mesh(
            role="standby", key_holders=(other.endpoint(),)
        )
        broker.answers[PlanSync] = lambda _: follow(endpoint("node-a", port=9))
        outcome = loop.round(desk)
        assert other.visits == []

    assert outcome.error.startswith("node-a: fetch failed")
    assert broker.seen(InstallPage) == []


def test_failures_back_off_briefly_and_are_said_once(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A standby must not lag for a whole period behind a primary that was only restarted."""

    def refuse(_: Visit) -> None:
        raise CALockedError("the CA is locked")

    primary.table[EVENTS] = refuse
    assert [loop.round(desk).next_in_ms for _ in range(4)] == [1000, 2000, 5000, 5000]
    assert rejected(caplog) == ["fetch failed: the CA is locked"]

    primary.table[EVENTS] = lambda _: PAGE
    assert loop.round(desk).error == ""
    primary.table[EVENTS] = refuse
    assert loop.round(desk).next_in_ms == 1000
    assert broker.seen(InstallPage)


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (ClaimRejectedError("not of this mesh"), "verification failed: not of this mesh"),
        (ForkedError("no common row"), "forked: no common row"),
    ],
)
def test_a_page_that_the_broker_does_not_believe_is_the_sources_fault(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, refusal: Exception, words: str
) -> None:
    """A forged or replayed head is an alarm, in its own words."""

    def refuse(_: InstallPage) -> Reply:
        raise refusal

    broker.answers[InstallPage] = refuse

    outcome = loop.round(desk)

    assert outcome.error == f"node-a: {words}"


def test_a_full_disk_here_is_not_blamed_on_the_primary(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """It is tried again soon: the row must become durable."""

    def refuse(_: InstallPage) -> Reply:
        raise StorageError("the disk is full")

    broker.answers[InstallPage] = refuse

    outcome = loop.round(desk)

    assert (outcome.error, outcome.next_in_ms) == ("the disk is full", 1000)
    assert rejected(caplog) == []


def test_a_page_too_large_for_a_message_stops_at_the_edge(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """A hostile or broken primary costs one failed round."""
    primary.table[EVENTS] = lambda _: bytes(PAGE_BYTES_MAX + 1)

    assert "bad format" in loop.round(desk).error
    assert broker.seen(InstallPage) == []


def test_rows_of_a_fork_are_counted_in_the_log(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody will want to know where they went."""
    broker.answers[InstallPage] = lambda _: PageInstalled(12, behind=0, rows=3, orphaned=4)

    assert loop.round(desk).next_in_ms == 0
    (line,) = logged(caplog, EventName.ROSTER_FORKED)
    assert (line["source"], line["orphaned"]) == ("node-a", 4)


def in_background(loop: RosterSyncLoop, desk: Desk) -> tuple[threading.Thread, list[Any]]:
    """Run the round that waits in a thread; the desk is its own from now on."""
    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(loop.round(desk)), daemon=True)
    thread.start()
    return thread, outcomes


def test_a_long_poll_ends_at_once_when_there_is_another_errand(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode, gate: Gate
) -> None:
    """The next round has a new plan, and can ask the same node again without waiting for it."""
    loop.round(desk)
    primary.table[EVENTS] = gate
    thread, outcomes = in_background(loop, desk)
    eventually(lambda: len(asked(primary)) == 2)

    broker.publish_until(SyncWanted(), lambda: not thread.is_alive())

    assert outcomes[0].next_in_ms == 0
    assert outcomes[0].error == ""
    primary.table[EVENTS] = lambda _: PAGE
    assert loop.round(desk).state == "in step with node-a"


def test_a_long_poll_ends_at_once_when_the_role_moves(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode, gate: Gate
) -> None:
    """A node that became the primary follows nobody."""
    loop.round(desk)
    primary.table[EVENTS] = gate
    thread, outcomes = in_background(loop, desk)
    eventually(lambda: len(asked(primary)) == 2)

    broker.publish_until(RoleMoved("primary", 4), lambda: not thread.is_alive())

    assert outcomes[0].next_in_ms == 0
    assert len(broker.seen(InstallPage)) == 1


def test_a_long_poll_ends_when_another_broker_answers(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode, gate: Gate
) -> None:
    """The plan was the last one's; what it promised in memory is gone."""
    loop.round(desk)
    primary.table[EVENTS] = gate
    thread, outcomes = in_background(loop, desk)
    eventually(lambda: len(asked(primary)) == 2)

    broker.restart()

    eventually(lambda: not thread.is_alive())
    assert outcomes[0].next_in_ms == 0


def test_a_long_poll_ends_when_the_pool_stops(
    loop: RosterSyncLoop,
    desk: Desk,
    primary: FakeNode,
    gate: Gate,
    stop: StopByHand,
) -> None:
    """The process must be gone within a second, and nobody is to blame."""
    loop.round(desk)
    primary.table[EVENTS] = gate
    thread, outcomes = in_background(loop, desk)
    eventually(lambda: len(asked(primary)) == 2)
    asked_ms = boottime_ms()

    stop.ask()

    eventually(lambda: not thread.is_alive())
    assert boottime_ms() - asked_ms < 500
    assert outcomes[0].error == ""


def test_the_loop_beats_during_a_long_poll(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode, gate: Gate
) -> None:
    """Waiting for rows must not look like a hang: it lasts longer than the deadline."""
    loop.round(desk)
    primary.table[EVENTS] = gate
    thread, _ = in_background(loop, desk)
    eventually(lambda: len(asked(primary)) == 2)
    before = desk.record.progress

    eventually(lambda: desk.record.progress >= before + 3)

    assert broker.registered
    gate.open.set()
    eventually(lambda: not thread.is_alive())


def accept(source: Endpoint) -> SyncPlan:
    """Return the errand of a nominated node."""
    return SyncPlan(errand="accept", source=source, public_key=b"k" * 32)


def test_ready_is_said_only_after_the_broker_took_the_key(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The journal may call a node a standby only when the key is on its disk."""
    broker.answers[PlanSync] = lambda _: accept(primary.endpoint())
    said_before: list[int] = []

    def take(_: InstallKey) -> Reply:
        said_before.append(len(primary.seen(READY[1])))
        return Ack()

    broker.answers[InstallKey] = take

    outcome = loop.round(desk)

    (visit,) = primary.seen(ACCEPT[1])
    assert msgspec.json.decode(visit.body, type=AcceptBody).public_key == b"k" * 32
    assert broker.seen(InstallKey) == [InstallKey("node-a", PACKAGE)]
    assert said_before == [0]
    assert len(primary.seen(READY[1])) == 1
    assert (outcome.error, outcome.next_in_ms) == ("", EARLY_MS)
    assert logged(caplog, EventName.STANDBY_KEY_RECEIVED)[0]["term"] == 3


def test_a_key_that_does_not_fit_is_never_reported_as_ready(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """A received key that was never matched to the certificate could sign nothing."""

    def refuse(_: InstallKey) -> Reply:
        raise KeyRejectedError("it does not fit the issuing certificate")

    broker.answers[PlanSync] = lambda _: accept(primary.endpoint())
    broker.answers[InstallKey] = refuse

    outcome = loop.round(desk)

    assert outcome.error.startswith("node-a: verification failed")
    assert outcome.next_in_ms == 1000
    assert primary.seen(READY[1]) == []


def test_a_node_that_was_not_nominated_is_told_so(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """In the primary's words, and nothing is installed."""

    def refuse(_: Visit) -> None:
        raise ForbiddenError("node-b is not nominated")

    broker.answers[PlanSync] = lambda _: accept(primary.endpoint())
    primary.table[ACCEPT] = refuse

    assert loop.round(desk).error == "node-a: fetch failed: node-b is not nominated"
    assert broker.seen(InstallKey) == []


def test_orphans_are_brought_until_none_is_left(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """What was acknowledged on the other side of a partition is not lost."""
    left = [b"\x00first\xff", b"\x00second\xff"]

    def plan(_: PlanSync) -> Reply:
        source = primary.endpoint()
        return SyncPlan("return", source, orphans=left[0]) if left else follow(source)

    def home(request: NoteAdopted) -> Reply:
        left.remove(request.page)
        return Ack()

    broker.answers[PlanSync] = plan
    broker.answers[NoteAdopted] = home

    outcomes = [loop.round(desk) for _ in range(3)]

    brought = [msgspec.json.decode(v.body, type=AdoptBody).page for v in primary.seen(ADOPT[1])]
    assert brought == [b"\x00first\xff", b"\x00second\xff"]
    assert [outcome.next_in_ms for outcome in outcomes] == [0, 0, 0]
    assert outcomes[-1].state == "in step with node-a"


def test_orphans_that_did_not_arrive_are_not_forgotten(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """Only the primary's answer says that they are home."""
    broker.answers[PlanSync] = lambda _: SyncPlan("return", primary.endpoint(), orphans=b"rows")
    primary.table[ADOPT] = lambda _: None

    outcome = loop.round(desk)

    assert "fetch failed" in outcome.error
    assert broker.seen(NoteAdopted) == []


def test_what_the_merge_decided_is_a_warning(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A person should look at it."""
    broker.answers[PlanSync] = lambda _: SyncPlan("return", primary.endpoint(), orphans=b"rows")
    primary.table[ADOPT] = lambda _: AdoptAnswer(adopted=3, known=0, conflicts=1)

    loop.round(desk)

    (line,) = logged(caplog, EventName.MERGE_ADOPTED)
    assert (line["adopted"], line["conflicts"]) == (3, 1)
    assert [r.levelname for r in caplog.records if r.msg is line] == ["WARNING"]


def test_a_stopped_process_leaves_its_long_poll_within_a_second(
    broker: StubBroker, paths: Paths, primary: FakeNode, gate: Gate
) -> None:
    """The whole process, with the real signal."""
    process = run_module("workers.roster_sync", paths)
    try:
        eventually(lambda: broker.seen(InstallPage), within_s=15)
        primary.table[EVENTS] = gate
        eventually(lambda: asked(primary)[-1].wait_ms == WAIT_MS, within_s=15)
    finally:
        asked_ms = boottime_ms()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)

    assert process.returncode == 0, output
    assert boottime_ms() - asked_ms < 1500
