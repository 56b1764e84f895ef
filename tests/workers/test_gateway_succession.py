"""The mesh door between key holders: claims, journal rows, orphans, the key; long waits."""

import http.client
import os
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from broker.clock import boottime_ms
from broker.errors import ForbiddenError, ForkedError, StaleTermError, WithheldError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from broker.wire.base import Request
from broker.wire.control import Ack
from broker.wire.failover import Hello, HelloAnswer
from broker.wire.ids import Service
from broker.wire.mesh_api import HeartbeatBody, HelloBody, InstallBody, RekeyBody
from broker.wire.renewal import InstallAnswer, RekeyAnswer, StartInstall, StartRekey
from broker.wire.replica import (
    MARKS_MAX,
    AcceptBody,
    AcceptKey,
    AdoptAnswer,
    AdoptBody,
    AdoptRows,
    JournalAnswer,
    KeyPackage,
    Mark,
    ReadJournal,
    ReplicaBody,
    ReportReady,
)
from broker.wire.roster import HeartbeatAnswer, RecordHeartbeat, WhoAmI
from tests.stub_broker import StubBroker
from tests.support import eventually
from tests.workers.door_house import House, Visitor, visit
from tests.workers.loop_desk import GOSSIP, claim_of
from tests.workers.yard import LIMITS, Yard, whoami
from workers.gateway.replication import ORPHAN_BODY_BYTES
from workers.gateway.routes import MESH_ROUTES
from workers.route import Caller, Visit

EVENTS = "/v1/replica/events"
ADOPT = "/v1/replica/adopt"
LOCATOR = tuple(Mark(number, "ab" * 32) for number in range(MARKS_MAX))
PAGE = bytes(range(256)) * 2048
"""Half a megabyte: what a page of a journal may be, and no JSON."""


def plain(body: Any) -> Any:
    """Return what a client sends."""
    return msgspec.to_builtins(body)


@pytest.fixture
def yard(paths: Paths, settings: Settings) -> Iterator[Yard]:
    """Doors that stand open."""
    with StubBroker(paths, {WhoAmI: whoami}) as broker, House(paths, Service.GATEWAY) as house:
        made = Yard(paths, settings, house, broker)
        made.open()
        yield made


@contextmanager
def member(yard: Yard) -> Iterator[Visitor]:
    """Open a connection of the member `nas`."""
    with visit(yard.mesh, yard.member()) as visitor:
        yield visitor


def distinct(yard: Yard, kind: type[Request]) -> int:
    """Return how many questions of a kind reached the broker, repeats not counted."""
    return len({c.request_id for c in list(yard.broker.calls) if isinstance(c.request, kind)})


def test_a_probe_carries_the_claim_and_the_newest_beats_both_ways(yard: Yard) -> None:
    """Signed statements travel over any path."""
    yard.broker.answers[Hello] = lambda _: HelloAnswer(claim_of("atlas"), GOSSIP)

    with member(yard) as visitor:
        said = visitor.ask("POST", "/v1/hello", plain(HelloBody(claim_of("nas"), GOSSIP)))

    (hello,) = yard.broker.seen(Hello)
    assert (hello.peer.host, hello.claim, hello.gossip) == ("nas", claim_of("nas"), GOSSIP)
    answer = msgspec.json.decode(said.body, type=HelloAnswer)
    assert (answer.claim, answer.gossip) == (claim_of("atlas"), GOSSIP)


def test_a_heartbeat_carries_the_newest_beats_both_ways(yard: Yard) -> None:
    """Members are the witnesses of a primary that others cannot reach."""
    answer = HeartbeatAnswer(
        valid=True,
        primary=None,
        term=3,
        bundle_sequence=8,
        clock=UnixSeconds(1),
        next_beat_ms=9000,
        gossip=GOSSIP,
    )
    body = HeartbeatBody("ab", "0a", "served", UnixSeconds(1), 7, 3, gossip=GOSSIP)
    yard.broker.answers[RecordHeartbeat] = lambda _: answer

    with member(yard) as visitor:
        said = visitor.ask("POST", "/v1/heartbeat", plain(body))

    assert yard.broker.seen(RecordHeartbeat)[0].gossip == GOSSIP
    assert msgspec.json.decode(said.body, type=HeartbeatAnswer) == answer


def test_gossip_does_not_depend_on_a_small_limit_of_the_door(yard: Yard) -> None:
    """The limit here is 2 KiB; failover must work with whatever an operator has set."""
    beat = msgspec.structs.replace(GOSSIP.beats[0], body=bytes(1024))
    gossip = msgspec.structs.replace(GOSSIP, beats=(beat,) * 8)
    yard.broker.answers[Hello] = lambda _: HelloAnswer(claim_of("atlas"))

    with member(yard) as visitor:
        said = visitor.ask("POST", "/v1/hello", plain(HelloBody(claim_of("nas"), gossip)))

    assert said.status == 200
    assert LIMITS.body_bytes < 8 * 1024


def test_rows_are_answered_as_the_octets_of_the_broker(yard: Yard) -> None:
    """No JSON around them, nothing decoded on the way."""
    yard.broker.answers[ReadJournal] = lambda _: JournalAnswer(PAGE)

    with member(yard) as visitor:
        said = visitor.ask("POST", EVENTS, plain(ReplicaBody(LOCATOR, 250)))

    assert (said.status, said.body) == (200, PAGE)
    assert said.headers["Content-Type"] == "application/octet-stream"
    (asked,) = yard.broker.seen(ReadJournal)
    assert (asked.peer.host, asked.locator, asked.wait_ms) == ("nas", LOCATOR, 250)


@pytest.mark.parametrize(
    "body",
    [
        {"locator": [], "wait_ms": 60_001},
        {"locator": [], "wait_ms": -1},
        {"locator": plain((Mark(1, ""),) * (MARKS_MAX + 1))},
        {"locator": [{"sequence": 1, "hash": "../.."}]},
    ],
)
def test_a_question_out_of_bounds_never_reaches_the_broker(yard: Yard, body: object) -> None:
    """Nobody holds a place for longer than a minute."""
    with member(yard) as visitor:
        said = visitor.ask("POST", EVENTS, body)
    assert (said.status, said.json["code"]) == (400, "malformed")
    assert not yard.broker.seen(ReadJournal)


def test_journals_without_a_common_row_are_a_conflict(yard: Yard) -> None:
    """The follower learns it by code."""

    def forked(_: ReadJournal) -> None:
        raise ForkedError("the journals share no row")

    yard.broker.answers[ReadJournal] = forked
    with member(yard) as visitor:
        said = visitor.ask("POST", EVENTS, plain(ReplicaBody(())))
    assert (said.status, said.json["code"]) == (409, "forked")


def never(_: Request) -> None:
    """Answer nothing: there are no rows yet."""


def ask_for_rows(visitor: Visitor, wait_ms: int = 60_000) -> None:
    """Begin a long poll."""
    body = msgspec.json.encode(ReplicaBody((), wait_ms))
    visitor.http.request("POST", EVENTS, body)


def test_the_broker_may_answer_when_there_are_rows(yard: Yard) -> None:
    """The long poll is the push."""
    yard.broker.answers[ReadJournal] = never
    with member(yard) as visitor:
        ask_for_rows(visitor)
        eventually(lambda: yard.broker.seen(ReadJournal))
        call = next(c for c in yard.broker.calls if isinstance(c.request, ReadJournal))

        yard.broker.answer_later(call, JournalAnswer(b"rows"))

        answer = visitor.http.getresponse()
        assert (answer.status, answer.read()) == (200, b"rows")


def test_a_long_poll_does_not_delay_the_stop(yard: Yard) -> None:
    """It is ended with a reason to come back; the drain is for requests that will be answered."""
    yard.broker.answers[ReadJournal] = never
    with member(yard) as visitor:
        ask_for_rows(visitor)
        eventually(lambda: yard.broker.seen(ReadJournal))
        began_ms = boottime_ms()

        with closing(yard) as done:
            answer = visitor.http.getresponse()
            problem = msgspec.json.decode(answer.read())
            visitor.wire.close()
            assert done.wait(5)

        assert boottime_ms() - began_ms < LIMITS.drain_s * 1000 / 2
    assert (answer.status, problem["code"]) == (503, "unavailable")
    assert answer.headers["Connection"] == "close"


def test_a_peer_that_keeps_a_connection_for_later_does_not_delay_the_stop(yard: Yard) -> None:
    """Every other node has one, and reads from it only when it has something to ask."""
    with member(yard) as visitor:
        assert visitor.ask("GET", "/v1/whoami").status == 200
        began_ms = boottime_ms()

        yard.house.wait(yard.gateway.close())

        assert boottime_ms() - began_ms < LIMITS.drain_s * 1000 / 2


def test_an_ordinary_request_is_still_finished_at_the_stop(yard: Yard) -> None:
    """Only waiting for something that may never come is cut short."""
    yard.broker.answers[WhoAmI] = never
    with member(yard) as visitor:
        visitor.http.request("GET", "/v1/whoami")
        eventually(lambda: yard.broker.seen(WhoAmI))
        with closing(yard):
            eventually(lambda: not yard.gateway.mesh.is_open)
            yard.broker.answers[WhoAmI] = whoami
            answer = visitor.http.getresponse()
            answer.read()
            visitor.wire.close()
    assert answer.status == 200


@contextmanager
def closing(yard: Yard) -> Iterator[threading.Event]:
    """Close the doors meanwhile; the event is set when they are."""
    done = threading.Event()

    def close() -> None:
        yard.house.wait(yard.gateway.close())
        done.set()

    thread = threading.Thread(target=close)
    thread.start()
    yield done
    thread.join(10)
    assert done.is_set()


def test_a_long_poll_that_nobody_waits_for_frees_its_place(yard: Yard) -> None:
    """A standby breaks off whenever it has another errand; two places are all there are here."""
    yard.broker.answers[ReadJournal] = never
    for number in range(1, LIMITS.in_flight + 2):
        with member(yard) as visitor:
            ask_for_rows(visitor)
            eventually(lambda number=number: distinct(yard, ReadJournal) == number)  # type: ignore[misc]  # bound now
        eventually(lambda: yard.gateway.mesh.connections == 0)
    with member(yard) as visitor:
        assert visitor.ask("GET", "/v1/whoami").status == 200


def test_the_patience_of_a_route_is_that_of_the_question() -> None:
    """Behind a silent broker a standby must hear so before its own patience ends."""
    (route,) = (route for route in MESH_ROUTES if route.path == EVENTS)
    assert route.defer is not None
    for wait_ms in (0, 60_000):
        asking = Visit(Caller("192.0.2.1"), body=ReplicaBody((), wait_ms))
        assert route.defer(asking) == wait_ms
    assert route.timeout_ms <= 5_000


def orphans(size: int) -> bytes:
    """Return a body with so many octets of rows."""
    return msgspec.json.encode(AdoptBody(os.urandom(size)))


def test_orphans_may_be_as_many_as_a_message_carries(yard: Yard) -> None:
    """A megabyte of base64, where everything else is limited to 2 KiB."""
    yard.broker.answers[AdoptRows] = lambda _: AdoptAnswer(adopted=1, known=2, conflicts=3)
    body = orphans(786_432)

    with member(yard) as visitor:
        said = visitor.ask("POST", ADOPT, body)

    assert msgspec.json.decode(said.body, type=AdoptAnswer) == AdoptAnswer(1, 2, 3)
    (adopt,) = yard.broker.seen(AdoptRows)
    assert (adopt.peer.host, len(adopt.page)) == ("nas", 786_432)
    assert len(body) < ORPHAN_BODY_BYTES


def test_more_than_a_message_carries_is_refused_unread(yard: Yard) -> None:
    """The limit of a route is a limit."""
    head = f"POST {ADOPT} HTTP/1.1\r\nHost: a\r\nContent-Length: {ORPHAN_BODY_BYTES + 1}\r\n\r\n"
    with member(yard) as visitor:
        visitor.wire.sendall(head.encode())
        answer = http.client.HTTPResponse(visitor.wire)
        answer.begin()
        assert answer.status == 413
    with member(yard) as visitor:
        said = visitor.ask("POST", ADOPT, {"page": b64encode(bytes(786_433)).decode()})
    assert (said.status, said.json["code"]) == (400, "malformed")
    assert not yard.broker.seen(AdoptRows)


def test_large_bodies_are_few_at_a_time(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member with many connections must not fill the memory of the gateway."""
    monkeypatch.setattr("workers.web.LARGE_AT_ONCE", 1)
    yard.broker.answers[AdoptRows] = never
    with member(yard) as first, member(yard) as second:
        first.http.request("POST", ADOPT, orphans(1000))
        eventually(lambda: yard.broker.seen(AdoptRows))

        said = second.ask("POST", ADOPT, orphans(1000))

        assert (said.status, said.json["detail"]) == (429, "too many large requests at once")
        yard.broker.answers[AdoptRows] = lambda _: AdoptAnswer(1, 0, 0)
        assert first.http.getresponse().status == 200
    with member(yard) as third:
        assert third.ask("POST", ADOPT, orphans(1000)).status == 200


def test_a_nominated_node_gets_the_sealed_key(yard: Yard) -> None:
    """Sealed to the one-time key of whoever asked, over a connection with its certificate."""
    package = KeyPackage(sealed=b"\x00sealed", term=3, giver="ef" * 32)
    yard.broker.answers[AcceptKey] = lambda _: package

    with member(yard) as visitor:
        said = visitor.ask("POST", "/v1/standby/accept", plain(AcceptBody(b"k" * 32)))

    assert msgspec.json.decode(said.body, type=KeyPackage) == package
    (asked,) = yard.broker.seen(AcceptKey)
    assert (asked.peer.host, asked.public_key) == ("nas", b"k" * 32)


@pytest.mark.parametrize("size", [0, 31, 33, 1000])
def test_what_is_no_public_key_is_refused_at_the_door(yard: Yard, size: int) -> None:
    """Exactly 32 octets are one of X25519."""
    with member(yard) as visitor:
        said = visitor.ask("POST", "/v1/standby/accept", plain(AcceptBody(bytes(size))))
    assert (said.status, said.json["code"]) == (400, "malformed")
    assert not yard.broker.seen(AcceptKey)


def test_a_member_that_was_not_nominated_gets_no_key(yard: Yard) -> None:
    """The broker decides by certificate and roster; its word is passed on."""

    def refuse(_: AcceptKey) -> None:
        raise ForbiddenError("nas is not nominated")

    yard.broker.answers[AcceptKey] = refuse
    with member(yard) as visitor:
        said = visitor.ask("POST", "/v1/standby/accept", plain(AcceptBody(b"k" * 32)))
    assert (said.status, said.json["detail"]) == (403, "nas is not nominated")


def test_a_node_with_the_key_says_so_for_itself_only(yard: Yard) -> None:
    """There is no body in which another name could stand."""
    yard.broker.answers[ReportReady] = lambda _: Ack()

    with member(yard) as visitor:
        assert visitor.ask("POST", "/v1/standby/ready").status == 200

    assert yard.broker.seen(ReportReady)[0].peer.host == "nas"


def test_a_primary_that_was_replaced_cannot_renew_a_member(yard: Yard) -> None:
    """Every call carries the caller's term, and the member has heard of a higher one."""

    def stale(_: Request) -> None:
        raise StaleTermError("term 3 is over")

    yard.broker.answers[StartRekey] = lambda _: RekeyAnswer(b"csr")
    yard.broker.answers[StartInstall] = lambda _: InstallAnswer("0a", "served", "")
    install = plain(InstallBody(b"leaf", b"issuing", 3))
    with member(yard) as visitor:
        assert visitor.ask("POST", "/v1/renewal/csr", plain(RekeyBody(3))).status == 200
        assert visitor.ask("POST", "/v1/renewal/install", install).status == 200
        yard.broker.answers[StartRekey] = stale
        said = visitor.ask("POST", "/v1/renewal/csr", plain(RekeyBody(3)))
        untold = visitor.ask("POST", "/v1/renewal/csr")
    assert yard.broker.seen(StartRekey)[0].term == 3
    assert yard.broker.seen(StartInstall)[0].term == 3
    assert (said.status, said.json["code"]) == (409, "stale_term")
    assert (untold.status, "term" in untold.json["detail"]) == (400, True)


def test_a_caretaker_says_that_it_has_not_its_full_powers(yard: Yard) -> None:
    """With the code that callers decide by."""

    def withheld(_: ReportReady) -> None:
        raise WithheldError("a caretaker changes no roles", hint="certmesh standby promote")

    yard.broker.answers[ReportReady] = withheld
    with member(yard) as visitor:
        said = visitor.ask("POST", "/v1/standby/ready")
    assert (said.status, said.json["code"]) == (503, "withheld")


def test_strangers_find_nothing_of_this_at_the_other_door(yard: Yard) -> None:
    """The enrol port knows no journal and no keys."""
    with visit(yard.enroll, yard.stranger()) as visitor:
        for path in (EVENTS, ADOPT, "/v1/standby/accept", "/v1/standby/ready", "/v1/hello"):
            assert visitor.ask("POST", path).status == 404
