"""Halves on their way, over real mutual TLS, against a stub broker."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from broker.errors import MalformedMessageError, NotAMemberError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from broker.wire.base import Reply, Request
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.node import GetNode
from broker.wire.replica import PlanSync, SyncPlan
from broker.wire.roster import Peer
from broker.wire.slot import (
    AddSlot,
    GiveHalf,
    GiveHalfBody,
    HalfAnswer,
    KeepHalf,
    KeepHalfBody,
    NoteHalf,
    PlanUnlock,
    RemoveSlot,
    UnlockByCode,
    UnlockPlan,
)
from tests.stub_broker import StubBroker
from tests.workers.fake_node import FakeNode, Visit
from tests.workers.loop_desk import StopByHand, desk_at, endpoint, enrol, node_in_mesh, peer_session
from tests.workers.small_ca import SmallCA
from workers import route
from workers.console.routes import ASKING_ROUTES
from workers.gateway.routes import MESH_ROUTES
from workers.process import Desk
from workers.roster_sync.loop import RosterSyncLoop

KEEP, ASK = ("POST", "/v1/unlock/keep"), ("POST", "/v1/unlock/ask")
SLOT = "ab" * 8
HALF = bytes(range(224, 256))
"""No text could carry it."""


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA."""
    return SmallCA()


@pytest.fixture
def peer(ca: SmallCA) -> Iterator[FakeNode]:
    """The mesh port of node-p, which keeps halves."""
    table: dict[tuple[str, str], Callable[[Visit], Any]] = {
        KEEP: lambda _: Ack(),
        ASK: lambda _: HalfAnswer(HALF, SLOT),
    }
    with FakeNode(ca, table, host="node-p", mutual=True) as node:
        yield node


@pytest.fixture
def plans() -> list[UnlockPlan]:
    """What the broker plans, one after the other; then nothing."""
    return []


@pytest.fixture
def broker(paths: Paths, ca: SmallCA, plans: list[UnlockPlan]) -> Iterator[StubBroker]:
    """The broker of node-b, a locked standby."""
    enrol(paths, ca)
    answers: dict[type[Request], Callable[[Any], Reply | None]] = {
        GetNode: lambda _: node_in_mesh(role="standby", ca="locked"),
        PlanSync: lambda _: SyncPlan("none", reason="no primary is known"),
        PlanUnlock: lambda _: plans.pop(0) if plans else UnlockPlan("none"),
        NoteHalf: lambda _: Ack(),
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
    with desk_at(paths, settings, Service.ROSTER_SYNC, stop) as found:
        yield found


@pytest.fixture
def loop(settings: Settings) -> RosterSyncLoop:
    """The loop under test."""
    return RosterSyncLoop(settings, peer_session)


def test_a_half_is_brought_and_the_broker_told(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    peer: FakeNode,
    plans: list[UnlockPlan],
) -> None:
    """Only then the slot counts."""
    plans.append(UnlockPlan("give", SLOT, peer.endpoint(), HALF))
    loop.round(desk)
    (visit,) = peer.visits
    assert msgspec.json.decode(visit.body, type=KeepHalfBody) == KeepHalfBody(SLOT, HALF)
    assert visit.peer is not None, "the peer has to see who leaves a half with it"
    assert broker.seen(NoteHalf) == [NoteHalf(SLOT, "node-p")]


def test_a_half_is_fetched_and_handed_in_untouched(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    peer: FakeNode,
    plans: list[UnlockPlan],
) -> None:
    """The broker tries it; the worker only carries."""
    plans.append(UnlockPlan("ask", SLOT, peer.endpoint()))
    loop.round(desk)
    (visit,) = peer.visits
    assert msgspec.json.decode(visit.body, type=GiveHalfBody) == GiveHalfBody(SLOT)
    assert broker.seen(NoteHalf) == [NoteHalf(SLOT, "node-p", HALF)]


def test_a_refusal_is_told_in_the_peers_words_and_keeps_nobody_from_syncing(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    peer: FakeNode,
    plans: list[UnlockPlan],
) -> None:
    """The operator reads why; the rows flow all the same."""

    def refuse(_: Visit) -> None:
        raise NotAMemberError("node-b is not a key holder of this mesh")

    peer.table[ASK] = refuse
    plans.append(UnlockPlan("ask", SLOT, peer.endpoint()))
    outcome = loop.round(desk)
    (noted,) = broker.seen(NoteHalf)
    assert (noted.half, "not a key holder" in noted.problem) == (b"", True)
    assert broker.seen(PlanSync)
    assert outcome.error == ""


def test_a_peer_that_is_away_is_told_and_asked_again_when_the_broker_says(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, plans: list[UnlockPlan]
) -> None:
    """A boot after a power cut: the peer comes a minute later."""
    away = endpoint("node-p", port=1)
    plans += [UnlockPlan("ask", SLOT, away), UnlockPlan("none", retry_in_ms=5_000)]
    outcome = loop.round(desk)
    (noted,) = broker.seen(NoteHalf)
    assert noted.problem
    assert outcome.next_in_ms == 5_000
    assert loop.round(desk).next_in_ms is None, "and the pause is over with its cause"


def test_several_errands_are_done_in_one_round(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    peer: FakeNode,
    plans: list[UnlockPlan],
) -> None:
    """The second peer is not a period away from the first."""
    plans += [UnlockPlan("ask", SLOT, peer.endpoint())] * 2
    loop.round(desk)
    assert len(broker.seen(NoteHalf)) == 2


def test_a_broker_that_never_stops_planning_does_not_hold_the_loop(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker, peer: FakeNode, plans: list[UnlockPlan]
) -> None:
    """Errands of one round are few; then the others get their turn."""
    plans += [UnlockPlan("ask", SLOT, peer.endpoint())] * 100
    outcome = loop.round(desk)
    assert len(broker.seen(NoteHalf)) < 20
    assert outcome.next_in_ms == 0


def test_a_member_without_the_key_asks_for_no_errand(
    loop: RosterSyncLoop, desk: Desk, broker: StubBroker
) -> None:
    """Most nodes of a mesh have nothing to unlock."""
    broker.answers[GetNode] = lambda _: node_in_mesh()
    loop.round(desk)
    assert broker.seen(PlanUnlock) == []


def test_an_answer_that_is_no_half_goes_to_nobody(
    loop: RosterSyncLoop,
    desk: Desk,
    broker: StubBroker,
    peer: FakeNode,
    plans: list[UnlockPlan],
) -> None:
    """A half has 32 bytes; anything else is trouble of the peer."""
    peer.table[ASK] = lambda _: HalfAnswer(HALF[:-1], SLOT)
    plans.append(UnlockPlan("ask", SLOT, peer.endpoint()))
    loop.round(desk)
    (noted,) = broker.seen(NoteHalf)
    assert (noted.half, bool(noted.problem)) == (b"", True)


# The doors.


def _made(
    routes: tuple[route.Route, ...], method: str, path: str, raw: bytes
) -> tuple[route.Route, Request]:
    peer = Peer("4c11", "atlas", "cd" * 32, UnixSeconds(9))
    found, parameters = route.RouteTable(routes).find(method, path)
    assert found.body is not None
    assert found.make is not None
    caller = route.Caller(source="local", peer=peer, operator="ann")
    body = route.decode_content(raw, found.body)
    return found, found.make(route.Visit(caller, parameters, body=body))


def test_the_doors_put_halves_to_the_broker_with_the_callers_certificate() -> None:
    """No body names its owner: TLS does."""
    body = msgspec.json.encode(KeepHalfBody(SLOT, HALF))
    _, keep = _made(MESH_ROUTES, *KEEP, body)
    assert isinstance(keep, KeepHalf)
    assert (keep.peer.host, keep.slot_id, keep.half) == ("atlas", SLOT, HALF)
    _, give = _made(MESH_ROUTES, *ASK, msgspec.json.encode(GiveHalfBody(SLOT)))
    assert isinstance(give, GiveHalf)
    assert (give.peer.host, give.slot_id) == ("atlas", SLOT)
    with pytest.raises(MalformedMessageError):
        _made(MESH_ROUTES, *KEEP, msgspec.json.encode({"slot_id": SLOT, "half": "AAAA"}))


def test_the_console_puts_changes_to_the_broker_for_the_person_who_asked() -> None:
    """No body names an operator, and no token reaches these: they take passphrases."""
    raw = b'{"slot_kind": "peer", "passphrase": "p", "peer": "nas"}'
    posted, add = _made(ASKING_ROUTES, "POST", "/v1/ca/slots", raw)
    assert add == AddSlot("peer", b"p", "ann", b"", "nas")
    deleted, gone = _made(ASKING_ROUTES, "DELETE", f"/v1/ca/slots/{SLOT}", b'{"passphrase": "p"}')
    assert gone == RemoveSlot(SLOT, b"p", "ann")
    unlocked, code = _made(ASKING_ROUTES, "POST", "/v1/ca/unlock-code", b'{"code": "123456"}')
    assert code == UnlockByCode("123456", "ann")
    assert {each.scope for each in (posted, deleted, unlocked)} == {"uid"}
