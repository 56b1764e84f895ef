"""A broker of another release: the caller hears why at once, the process knows when to leave."""

from collections.abc import Iterator

import msgspec
import pytest
import zmq

from broker.client.exchange import OUTDATED_MS, Exchange
from broker.client.lane import LocalDoor
from broker.client.link import Link
from broker.client.protocol import result_of
from broker.clock import boottime_ms
from broker.errors import UnknownKindError, UnsupportedVersionError
from broker.runtime.paths import Paths
from broker.runtime.sockets import endpoint
from broker.units import Millis
from broker.wire.codec import VERSION_FRAME
from broker.wire.ids import Service
from broker.wire.messages import Call
from broker.wire.node import GetNode, NodeView
from tests.support import eventually

NEXT = b"\x63"


@pytest.fixture
def sockets(paths: Paths) -> Iterator[tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]]:
    """The two sockets of a broker that answers by hand."""
    with zmq.Context() as context:
        pair = (context.socket(zmq.ROUTER), context.socket(zmq.ROUTER))
        for socket, path in zip(pair, (paths.control_socket, paths.requests_socket), strict=True):
            socket.linger = 0
            socket.bind(endpoint(path))
        yield pair
        for socket in pair:
            socket.close()


def _answer(socket: "zmq.Socket[bytes]", version: bytes, kind: str) -> bool:
    """Answer one waiting call with a reply of this kind in this version; say whether one waited."""
    if not socket.poll(0):
        return False
    identity, _, body = socket.recv_multipart()
    call = msgspec.msgpack.decode(body)
    reply = {"request_id": call["request_id"], "reply": {"kind": kind}}
    socket.send_multipart([identity, version, msgspec.msgpack.encode(reply)])
    return True


def _pump(exchange: Exchange) -> bool:
    exchange.keep_registered(boottime_ms())
    exchange.collect()
    return exchange.refusal is not None


def test_a_broker_of_another_version_is_heard_and_named(
    paths: Paths, sockets: tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]
) -> None:
    """Its answer cannot be read, but it is one: "no broker answered" would be a lie (row 54)."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    exchange = Exchange(context, LocalDoor(paths), Service.CONSOLE, "console-0")
    try:

        def refused() -> bool:
            _answer(sockets[0], NEXT, "fault")
            return _pump(exchange)

        eventually(refused)
        assert isinstance(exchange.refusal, UnsupportedVersionError)
        assert "63" in exchange.refusal.detail
        now_ms = boottime_ms()
        assert not exchange.is_outdated(now_ms)
        assert exchange.is_outdated(Millis(now_ms + OUTDATED_MS))
    finally:
        exchange.close()
        context.term()


def test_a_process_that_is_welcome_after_all_stays(
    paths: Paths, sockets: tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]
) -> None:
    """In an upgrade the right broker may be back first (row 54)."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    exchange = Exchange(context, LocalDoor(paths), Service.CONSOLE, "console-0")
    try:

        def refused() -> bool:
            _answer(sockets[0], NEXT, "fault")
            return _pump(exchange)

        def registered() -> bool:
            _welcome(sockets[0])
            _pump(exchange)
            return exchange.registered

        eventually(refused)
        eventually(registered)
        assert not exchange.is_outdated(Millis(boottime_ms() + 10 * OUTDATED_MS))
    finally:
        exchange.close()
        context.term()


def _welcome(socket: "zmq.Socket[bytes]") -> None:
    if not socket.poll(0):
        return
    identity, _, body = socket.recv_multipart()
    request_id = msgspec.msgpack.decode(body, type=Call).request_id
    reply = {"kind": "welcome", "broker_boot_id": "b", "beat_every_ms": 100}
    frames = msgspec.msgpack.encode({"request_id": request_id, "reply": reply})
    socket.send_multipart([identity, VERSION_FRAME, frames])


def test_an_answer_of_a_kind_nobody_here_knows_is_a_refusal_and_no_silence(
    paths: Paths, sockets: tuple["zmq.Socket[bytes]", "zmq.Socket[bytes]"]
) -> None:
    """It would be asked for again and again until the deadline, and then called a timeout.

    (row 54)
    """
    with Link(paths, Service.CONSOLE, "console-0") as link:

        def registered() -> bool:
            _welcome(sockets[0])
            link.collect()
            return link.keep_registered()

        eventually(registered)
        request_id = link.post(GetNode(), timeout_ms=60_000)
        eventually(lambda: _answer(sockets[0], VERSION_FRAME, "weather"))
        (answer,) = eventually(link.collect)
        assert answer.request_id == request_id
        with pytest.raises(UnknownKindError, match="weather"):
            result_of(answer.reply, NodeView)
