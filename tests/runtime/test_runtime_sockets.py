"""The options of every socket, and what they are for."""

from collections.abc import Iterator

import pytest
import zmq

from broker.runtime import sockets
from broker.runtime.paths import Paths
from tests.support import eventually, throughout


@pytest.fixture
def context() -> Iterator["zmq.Context[zmq.Socket[bytes]]"]:
    """A context whose leaked sockets would hang the test."""
    with zmq.Context() as made:
        yield made


def _dealer(
    context: "zmq.Context[zmq.Socket[bytes]]", paths: Paths, name: bytes
) -> "zmq.Socket[bytes]":
    return sockets.dealer(context, paths.requests_socket, name)


def test_nothing_lingers_when_the_broker_is_gone(
    context: "zmq.Context[zmq.Socket[bytes]]", paths: Paths
) -> None:
    """The default would hang every exit for ever."""
    made = [
        _dealer(context, paths, b"a"),
        sockets.subscriber(context, paths.events_socket, (b"roster-moved",)),
        sockets.publisher(context, paths.events_socket),
        sockets.request_router(context, paths.requests_socket),
        sockets.control_router(context, paths.control_socket),
    ]
    lingers = [socket.getsockopt(zmq.LINGER) for socket in made]
    for socket in made:
        socket.close()
    assert lingers == [0, 0, 0, 100, 100]


def test_nothing_is_queued_for_a_broker_that_is_not_there(
    context: "zmq.Context[zmq.Socket[bytes]]", paths: Paths
) -> None:
    """A request whose caller gave up must not be carried out by the next broker."""
    with _dealer(context, paths, b"a") as dealer:
        with pytest.raises(zmq.Again):
            dealer.send(b"late", zmq.NOBLOCK)
        with sockets.request_router(context, paths.requests_socket) as router:
            eventually(lambda: dealer.poll(0, zmq.POLLOUT))
            dealer.send(b"fresh")
            assert router.poll(2000)
            assert router.recv_multipart() == [b"a", b"fresh"]


def test_a_second_process_cannot_take_over_an_identity_in_use(
    context: "zmq.Context[zmq.Socket[bytes]]", paths: Paths
) -> None:
    """Authority hangs on the identity that sent READY (row 40)."""
    with (
        sockets.request_router(context, paths.requests_socket) as router,
        _dealer(context, paths, b"renewal") as first,
    ):
        eventually(lambda: first.poll(0, zmq.POLLOUT))
        first.send(b"hello")
        assert router.poll(2000)
        router.recv_multipart()
        with _dealer(context, paths, b"renewal") as second:
            eventually(lambda: second.poll(0, zmq.POLLOUT))
            second.send(b"I am renewal")
            throughout(lambda: not router.poll(0), for_s=0.2)
            router.send_multipart([b"renewal", b"secret"])
            assert first.poll(2000)
            assert not second.poll(100)


def test_an_oversized_frame_never_reaches_the_broker(
    context: "zmq.Context[zmq.Socket[bytes]]", paths: Paths
) -> None:
    """The connection ends before the memory is taken; others are served on (row 39)."""
    with (
        sockets.request_router(context, paths.requests_socket) as router,
        _dealer(context, paths, b"big") as big,
        _dealer(context, paths, b"small") as small,
    ):
        for dealer in (big, small):
            eventually(lambda dealer=dealer: dealer.poll(0, zmq.POLLOUT))  # type: ignore[misc]  # bound now
        big.send(b"x" * (sockets.FRAME_BYTES_MAX + 1))
        small.send(b"hello")
        assert router.poll(2000)
        assert router.recv_multipart() == [b"small", b"hello"]
        throughout(lambda: not router.poll(0), for_s=0.1)


def test_an_answer_to_nobody_is_an_error_and_not_silence(
    context: "zmq.Context[zmq.Socket[bytes]]", paths: Paths
) -> None:
    """ROUTER_MANDATORY: the broker learns that a worker has gone."""
    with (
        sockets.request_router(context, paths.requests_socket) as router,
        pytest.raises(zmq.ZMQError) as refusal,
    ):
        router.send_multipart([b"nobody", b"hello"])
    assert refusal.value.errno == zmq.EHOSTUNREACH
