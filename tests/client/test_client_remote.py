"""The link over CURVE: finds its broker, says why it does not, and never listens to another one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from broker.client import Link
from broker.client.exchange import Exchange
from broker.client.remote import AGAIN_MS, RemoteDoor, RemoteLane
from broker.clock import boottime_ms
from broker.errors import DeadlineError, ForbiddenError, UnavailableError
from broker.runtime.curve import new_pair
from broker.runtime.sockets import bind_tcp, remote_router
from broker.wire.ids import Service
from broker.wire.liveness import Beat
from broker.wire.node import GetNode, NodeView
from broker.wire.work import LeaseWork
from tests.shell.remote_office import HERE, RemoteOffice, free_port
from tests.support import eventually


@pytest.fixture
def office(home: Path) -> Iterator[RemoteOffice]:
    """A broker with an open remote port."""
    with RemoteOffice(home) as made:
        made.open_port()
        yield made


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    """A context whose leaked sockets would hang the test."""
    with zmq.Context() as made:
        yield made


def test_both_lanes_are_one_connection(office: RemoteOffice) -> None:
    """One descriptor to wait for, one identity to be known by."""
    with office.link(office.grant()) as link:
        link.introduce()
        assert len(link.descriptors()) == 1
        assert link.post(GetNode()) is not None
        assert link.beat(Beat(1, 1000))
        eventually(lambda: [a for a in link.collect() if isinstance(a.reply, NodeView)])


def test_a_refusal_of_the_key_is_heard_at_once_and_a_later_grant_is_noticed(
    office: RemoteOffice,
) -> None:
    """Libzmq gives up for good after a refusal; the link does not."""
    pair = new_pair()
    with office.link(pair) as link:
        began_ms = boottime_ms()
        with pytest.raises(ForbiddenError):
            link.ask(GetNode(), NodeView, timeout_ms=5000)
        assert boottime_ms() - began_ms < AGAIN_MS
        with pytest.raises(ForbiddenError):
            link.ask(GetNode(), NodeView, timeout_ms=5000)
        office.grant("nas", pair)

        def admitted() -> bool:
            try:
                return link.ask(GetNode(), NodeView).host == "atlas"
            except ForbiddenError:
                return False

        eventually(admitted)


def test_a_refused_link_does_not_hammer_the_broker(office: RemoteOffice) -> None:
    """One handshake a second is enough to notice a grant."""
    questions: list[str] = []

    def count(key: str) -> None:
        questions.append(key)

    def listen(state: object) -> None:
        state.grant_of = count  # type: ignore[attr-defined]  # the broker's state

    office.visit(listen)
    until_ms = boottime_ms() + 2 * AGAIN_MS
    with office.link(new_pair()) as link:
        while boottime_ms() < until_ms:
            with pytest.raises(ForbiddenError):
                link.ask(GetNode(), NodeView)
    assert 1 <= len(questions) <= 3


def test_the_next_address_is_tried_when_one_does_not_answer(
    office: RemoteOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA names several; one of them may be of a network this machine does not see."""
    monkeypatch.setattr("broker.client.remote.REMOTE_HANDSHAKE_MS", 200)
    port, server_key = office.open_port()
    door = RemoteDoor(("127.0.0.2", "not-an-address", HERE), port, server_key, office.grant())
    assert door.literal == ("127.0.0.2", HERE)
    office.visit(lambda state: state)  # its port is bound on 127.0.0.1 alone
    with Link(door, Service.REMOTE_RENEWAL, "remote-renewal-0") as link:
        assert link.ask(GetNode(), NodeView).host == "atlas"


def test_a_door_without_a_literal_address_says_what_to_set() -> None:
    """A name is not resolved: that could take seconds, and who answers for a name is unproved."""
    with pytest.raises(UnavailableError) as refusal:
        RemoteDoor(("atlas.home.arpa",), 7644, new_pair().public, new_pair())
    assert "[node]" in refusal.value.hint


def test_nobody_at_the_address_is_unavailable_within_the_timeout() -> None:
    """With the place, and what to look at there."""
    door = RemoteDoor((HERE,), free_port(), new_pair().public, new_pair())
    with Link(door, Service.REMOTE_RENEWAL, "remote-renewal-0") as link:
        began_ms = boottime_ms()
        with pytest.raises(UnavailableError, match=HERE) as refusal:
            link.ask(GetNode(), NodeView, timeout_ms=300)
        assert 300 <= boottime_ms() - began_ms < 700
        assert "[listen] workers" in refusal.value.hint
        assert "certmesh up" not in refusal.value.hint


def test_a_link_closes_at_once_whatever_it_was_doing(office: RemoteOffice) -> None:
    """Exit within a second also holds with a call under way."""
    dead = RemoteDoor((HERE,), free_port(), new_pair().public, new_pair())
    for door in (dead, office.door(office.grant()), office.door(new_pair())):
        link = Link(door, Service.REMOTE_RENEWAL, "remote-renewal-0")
        link.post(LeaseWork())
        link.keep_registered()
        began_ms = boottime_ms()
        link.close()
        assert boottime_ms() - began_ms < 300


def test_a_stop_ends_a_long_wait_soon() -> None:
    """As for a local link."""
    door = RemoteDoor((HERE,), free_port(), new_pair().public, new_pair())
    with Link(door, Service.REMOTE_RENEWAL, "remote-renewal-0", stopping=lambda: True) as link:
        began_ms = boottime_ms()
        with pytest.raises(UnavailableError):
            link.ask(GetNode(), NodeView, timeout_ms=30_000)
        assert boottime_ms() - began_ms < 1000


def test_who_is_connected_and_hears_nothing_takes_a_new_connection_and_a_new_name(
    context: "zmq.Context[zmq.Socket[bytes]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker may still hold the old connection, and would ignore a second of that name."""
    monkeypatch.setattr("broker.client.remote.SILENT_MS", 300)
    server, pair = new_pair(), new_pair()
    with remote_router(context, server, b"nobody asks") as router:
        # It lets everybody in and reads nothing: a broker whose loop hangs.
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 0)
        door = RemoteDoor((HERE,), bind_tcp(router, HERE, 0), server.public, pair)
        link = Link(door, Service.REMOTE_RENEWAL, "remote-renewal-0")
        with link, pytest.raises((UnavailableError, DeadlineError)):
            link.ask(GetNode(), NodeView, timeout_ms=1500)
        seen = set()
        while router.poll(0):
            seen.add(router.recv_multipart()[0])
    assert len(seen) >= 2
    first = min(seen, key=len)
    assert all(name.startswith(first) for name in seen)


def test_the_secret_is_in_no_text_about_the_link(office: RemoteOffice) -> None:
    """Whoever logs a door logs public keys."""
    pair = office.grant()
    door = office.door(pair)
    assert pair.secret.hex() not in repr(door)
    assert repr(pair.secret) not in repr(door)
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    exchange = Exchange(made, door, Service.REMOTE_RENEWAL, "remote-renewal-0")
    assert isinstance(exchange.control, RemoteLane)
    assert exchange.control is exchange.ordinary
    exchange.close()
    exchange.close()
    made.term()
