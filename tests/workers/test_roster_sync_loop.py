"""The roster-sync loop of a member, over real mutual TLS, against a stub broker."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from broker.errors import (
    BundleRejectedError,
    CALockedError,
    UnavailableError,
)
from broker.runtime.events import EventName
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.base import Reply, Request
from broker.wire.ids import Service
from broker.wire.node import Endpoint, GetNode
from broker.wire.replica import PlanSync, SyncPlan
from broker.wire.roster import BundleInstalled, InstallBundle, SignedBundle
from tests.stub_broker import StubBroker, idle_node
from tests.workers.fake_node import FakeNode, Visit
from tests.workers.loop_desk import (
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
from workers.roster_sync.loop import RosterSyncLoop

BUNDLE = msgspec.msgpack.encode(SignedBundle(body=b"body", issuing=b"der", signature=b"sig"))
PATH = ("GET", "/v1/bundle")


def bundle_plan(primary: Endpoint | None) -> SyncPlan:
    """Return the errand of a member."""
    return SyncPlan(errand="bundle", source=primary)


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def primary(ca: SmallCA) -> Iterator[FakeNode]:
    """The mesh port of node-a."""
    with FakeNode(ca, {PATH: lambda _: BUNDLE}, host="node-a", mutual=True) as node:
        yield node


@pytest.fixture
def standby(ca: SmallCA) -> Iterator[FakeNode]:
    """The mesh port of another key holder."""
    with FakeNode(ca, {PATH: lambda _: BUNDLE}, host="node-s", mutual=True) as node:
        yield node


@pytest.fixture
def broker(paths: Paths, ca: SmallCA, primary: FakeNode) -> Iterator[StubBroker]:
    """The broker of node-b."""
    enrol(paths, ca)
    answers: dict[type[Request], Callable[[Any], Reply | None]] = {
        GetNode: lambda _: node_in_mesh(),
        PlanSync: lambda _: bundle_plan(primary.endpoint()),
        InstallBundle: lambda _: BundleInstalled(bundle_sequence=8, term=3, changed=True),
    }
    with StubBroker(paths, answers) as stub:
        yield stub


@pytest.fixture
def desk(broker: StubBroker, paths: Paths, settings: Settings) -> Iterator[Desk]:
    """Where the loop works."""
    assert broker.boot_id
    with desk_at(paths, settings, Service.ROSTER_SYNC) as found:
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


def test_a_newer_bundle_goes_to_the_broker_untouched(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The broker verifies; the worker only carries."""
    outcome = loop.round(desk)

    assert [visit.path for visit in primary.visits] == ["/v1/bundle?after=7&term=3"]
    assert broker.seen(InstallBundle) == [InstallBundle(bundle=BUNDLE, source="node-a")]
    assert (outcome.error, outcome.state) == ("", "synced from node-a")
    assert logged(caplog, EventName.ROSTER_SYNCED)[0]["bundle_sequence"] == 8


def test_nothing_new_is_success_without_a_word(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The usual case is quiet."""
    primary.table[PATH] = lambda _: b""

    assert loop.round(desk).error == ""
    assert broker.seen(InstallBundle) == []
    assert caplog.records == []


def test_a_member_does_not_sync_from_itself(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """A node that syncs from itself is always in sync, even when the plan names that node."""
    broker.answers[GetNode] = lambda _: node_in_mesh("node-a")

    outcome = loop.round(desk)

    assert primary.visits == []
    assert "no endpoint" in outcome.error


def test_verification_failure_is_the_brokers_word_and_alarms(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the bundle says about itself, the pin decides."""

    def refuse(_: InstallBundle) -> Reply:
        raise BundleRejectedError("signed by another CA")

    broker.answers[InstallBundle] = refuse

    outcomes = [loop.round(desk) for _ in range(3)]

    assert all("verification failed: signed by another CA" in o.error for o in outcomes)
    assert rejected(caplog) == ["verification failed: signed by another CA"]


def test_bad_format_is_not_shown_to_the_broker(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    primary: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Rubbish stops at the edge."""
    primary.table[PATH] = lambda _: b"<html>hello</html>"

    assert "bad format" in loop.round(desk).error
    assert broker.seen(InstallBundle) == []
    assert rejected(caplog)[0].startswith("bad format")


def test_another_key_holder_stands_in_when_the_primary_is_away(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    standby: FakeNode,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A revocation must reach a node although the primary is dead; the failure stays visible."""
    broker.answers[GetNode] = lambda _: node_in_mesh(key_holders=(standby.endpoint(),))
    broker.answers[PlanSync] = lambda _: bundle_plan(endpoint("node-a", port=9))

    outcome = loop.round(desk)

    assert broker.seen(InstallBundle) == [InstallBundle(bundle=BUNDLE, source="node-s")]
    assert outcome.state == "synced from node-s"
    assert outcome.error.startswith("node-a: fetch failed")
    assert len(rejected(caplog)) == 1


def test_a_reachable_primary_is_the_only_one_asked(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode, standby: FakeNode
) -> None:
    """Other key holders may lag."""
    broker.answers[GetNode] = lambda _: node_in_mesh(key_holders=(standby.endpoint(),))

    loop.round(desk)

    assert (len(primary.visits), standby.visits) == (1, [])


def test_a_refusal_of_the_primary_is_a_failed_fetch(
    loop: RosterSyncLoop, desk: Desk, primary: FakeNode
) -> None:
    """In the primary's own words."""

    def refuse(_: Visit) -> None:
        raise CALockedError("the CA is locked")

    primary.table[PATH] = refuse

    assert loop.round(desk).error == "node-a: fetch failed: the CA is locked"


def test_an_impostor_at_the_primarys_address_is_not_believed(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, standby: FakeNode
) -> None:
    """Another member of the mesh answers there: right CA, wrong name (row 24)."""
    moved = msgspec.structs.replace(endpoint("node-a"), mesh_port=standby.port)
    broker.answers[PlanSync] = lambda _: bundle_plan(moved)

    outcome = loop.round(desk)

    assert broker.seen(InstallBundle) == []
    assert "fetch failed" in outcome.error


def test_a_crashed_fetch_is_logged_and_the_loop_goes_on(
    desk: Desk, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the fetch is one failed round, not the end of the worker."""

    class Broken:
        def call(self, *_: object, **__: object) -> Any:
            raise KeyError("bug")

        def fetch(self, *_: object, **__: object) -> bytes:
            raise KeyError("bug")

        def abort(self) -> None:
            """Nothing waits."""

        def close(self) -> None:
            """Nothing is open."""

    loop = RosterSyncLoop(settings, lambda *_: Broken())

    assert "crashed fetch: KeyError" in loop.round(desk).error
    assert rejected(caplog)[0].startswith("crashed fetch")


def test_trouble_of_the_own_broker_is_not_blamed_on_the_primary(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """The host retries; nothing is said about the primary."""

    def refuse(_: InstallBundle) -> Reply:
        raise UnavailableError("starting")

    broker.answers[InstallBundle] = refuse

    with pytest.raises(UnavailableError):
        loop.round(desk)
    assert rejected(caplog) == []


def test_no_endpoint_has_its_own_words(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, until it changes."""
    broker.answers[PlanSync] = lambda _: bundle_plan(None)

    for _ in range(2):
        assert "no endpoint" in loop.round(desk).error
    assert len(rejected(caplog)) == 1


def test_a_node_of_no_mesh_and_one_with_nothing_to_do_idle(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, primary: FakeNode
) -> None:
    """The role gate: the broker knows what there is to fetch."""
    broker.answers[PlanSync] = lambda _: SyncPlan("none", reason="the primary syncs from nobody")
    assert loop.round(desk).state == "idle: the primary syncs from nobody"

    broker.answers[GetNode] = lambda _: idle_node()
    assert loop.round(desk).state == "no mesh"
    assert len(broker.seen(PlanSync)) == 1
    assert primary.visits == []


def test_a_member_that_fails_waits_for_its_period_or_an_event(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker
) -> None:
    """Every member asking again each second would be a storm when the primary is back."""
    broker.answers[PlanSync] = lambda _: bundle_plan(endpoint("node-a", port=9))

    assert loop.round(desk).next_in_ms is None


def test_one_round_as_a_process(broker: StubBroker, paths: Paths, primary: FakeNode) -> None:
    """`python -m workers.roster_sync SETTINGS --once` syncs and exits 0."""
    process = run_module("workers.roster_sync", paths, "--once")
    output, _ = process.communicate(timeout=20)

    assert process.returncode == 0, output
    assert len(primary.visits) == 1
    assert broker.seen(InstallBundle)
