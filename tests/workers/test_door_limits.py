"""What one door takes from whom: rates, shares, sizes and the patience for slow readers."""

import contextlib
import http.client
import logging
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from aiohttp import web

from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.ids import Service
from tests.stub_broker import StubBroker
from tests.support import eventually, throughout
from tests.workers.door_house import House, Visitor
from tests.workers.tls_lab import SERVER_NAME
from tests.workers.yard import Yard
from workers.chatter import EVERY_S, OnceAMinute
from workers.connection import HEADER_BYTES_MAX, Connection, Limits, Origin
from workers.door import Door
from workers.health import HealthDesk
from workers.listener import tcp_listener
from workers.route import Caller, RouteTable
from workers.web import Front

LIMITS = Limits(per_source=4, connections=6, header_s=30.0, keepalive_s=30.0, answer_s=0.5)


def caller_of(connection: Connection) -> Caller:
    """Return a stranger."""
    return Caller(source=connection.origin.source)


class Porch:
    """A door without TLS on 127.0.0.1 that answers `/healthz`; `source` is where callers are."""

    def __init__(self, house: House, limits: Limits) -> None:
        self.source = "192.0.2.1"
        assert house.link is not None
        self._listener = tcp_listener("127.0.0.1:0", 64)
        self.place = self._listener.getsockname()
        front = Front(self._routes(), house.link, caller_of, limits)
        self.door = house.do(lambda: Door("porch", front.serve, limits, self._origin))
        house.closing.append(self.door.close)
        house.do(lambda: self.door.open(self._listener, None))

    def _routes(self) -> RouteTable:
        return RouteTable(HealthDesk(lambda: None).routes())

    def _origin(self, _peer: socket.socket) -> Origin:
        return Origin(self.source)

    @contextlib.contextmanager
    def visit(self, source: str = "") -> Iterator[Visitor]:
        """Open a connection."""
        self.source = source or self.source
        with (
            socket.create_connection(self.place, timeout=10) as wire,
            Visitor(wire) as visitor,
        ):
            yield visitor

    def crowd(self, source: str, count: int) -> list[socket.socket]:
        """Open idle connections from `source`."""
        self.source = source
        before = self.door.connections
        wires = [socket.create_connection(self.place, timeout=10) for _ in range(count)]
        eventually(lambda: self.door.connections == before + count)
        return wires


Build = Callable[..., Porch]


@pytest.fixture
def build(paths: Paths) -> Iterator[Build]:
    """Make a porch with limits that differ from the usual ones."""
    with House(paths, Service.GATEWAY) as house:
        yield lambda **differing: Porch(house, replace(LIMITS, **differing))


def bare_end(wire: ssl.SSLSocket) -> None:
    """End the TCP connection in our direction, without a word of TLS; the door may be first."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(wire, socket.SHUT_WR)


def said(caplog: pytest.LogCaptureFixture, reason: str) -> list[object]:
    """Return the lines of the log that give this reason."""
    lines = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    return [line for line in lines if line.get("reason") == reason]


def test_a_full_door_makes_room_for_who_comes_from_elsewhere(build: Build) -> None:
    """The crowd loses a connection, the newcomer is served (row 35)."""
    porch = build()
    crowds = porch.crowd("192.0.2.7", 4) + porch.crowd("192.0.2.8", 2)
    with porch.visit("192.0.2.9") as visitor:
        assert visitor.ask("GET", "/healthz").status == 200
    assert crowds[0].recv(1) == b""
    assert porch.door.connections <= 6
    for wire in crowds:
        wire.close()
    eventually(lambda: porch.door.connections == 0)


def test_connections_that_come_too_fast_are_closed_and_counted(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    """Handshakes are what a stranger can make us pay for; the log has one line (row 35)."""
    porch = build(arrivals_per_s=0.01, arrivals_burst=3)
    for _ in range(3):
        with porch.visit() as visitor:
            assert visitor.ask("GET", "/healthz").status == 200
    for _ in range(20):
        with porch.visit() as visitor, pytest.raises((OSError, http.client.HTTPException)):
            visitor.ask("GET", "/healthz")
    with porch.visit("192.0.2.2") as visitor:
        assert visitor.ask("GET", "/healthz").status == 200
    assert len(said(caplog, "connections too fast")) == 1


def test_requests_that_come_too_fast_are_told_when_to_come_back(build: Build) -> None:
    """429 with the wait, and the connection ends; another source does not wait (row 49)."""
    porch = build(requests_per_s=0.01, requests_burst=2)
    with porch.visit() as visitor:
        assert [visitor.ask("GET", "/healthz").status for _ in range(2)] == [200, 200]
        refused = visitor.ask("GET", "/healthz")
        assert (refused.status, refused.json["code"]) == (429, "throttled")
        assert 1 <= int(refused.headers["Retry-After"]) <= 100
        assert refused.json["hint"]
        assert refused.headers["Connection"] == "close"
    with porch.visit("192.0.2.2") as visitor:
        assert visitor.ask("GET", "/healthz").status == 200


def test_many_small_headers_are_one_large_header(build: Build) -> None:
    """Each line is short enough; together they are not, in one piece or in drops (row 35)."""
    porch = build()
    lines = {f"X-{number}": "x" * 4000 for number in range(12)}
    with porch.visit() as visitor:
        answer = visitor.ask("GET", "/healthz", headers=lines)
    assert (answer.status, answer.json["code"]) == (431, "oversized")
    with porch.visit() as visitor:
        visitor.wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n")
        sent = 0
        with contextlib.suppress(OSError):
            for number in range(60):
                sent += len(line := f"X-{number}: {'x' * 4000}\r\n".encode())
                visitor.wire.sendall(line)
                throughout(lambda: True, 0.01)
            assert visitor.wire.recv(1) == b""
        assert porch.door.connections == 0
    assert HEADER_BYTES_MAX == 32_768


def test_an_answer_that_nobody_reads_ends_the_connection(paths: Paths) -> None:
    """A reader that never reads must not hold memory and a place (row 35)."""

    async def large(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"x" * 16_000_000)

    with House(paths, Service.GATEWAY) as house:
        listener = tcp_listener("127.0.0.1:0", 16)
        door = house.do(lambda: Door("porch", large, LIMITS))
        house.closing.append(door.close)
        house.do(lambda: door.open(listener, None))
        with socket.create_connection(listener.getsockname()) as wire:
            wire.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            eventually(lambda: door.connections == 1)
            eventually(lambda: door.connections == 0)


def test_pipelined_requests_wait_in_the_kernel_and_not_in_our_memory(build: Build) -> None:
    """Ten thousand requests in one write are answered or pushed back, never collected (row 35)."""
    porch = build(answer_s=10.0)
    with porch.visit() as visitor:
        visitor.wire.settimeout(1)
        request = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 200_000_000:
                sent += visitor.wire.send(request * 1000)
        assert sent < 50_000_000
        with porch.visit("192.0.2.2") as other:
            assert other.ask("GET", "/healthz").status == 200


def test_a_refused_source_pays_for_its_pipeline_once(build: Build) -> None:
    """A thousand requests in one write are one refusal, not a thousand (row 35)."""
    porch = build(requests_per_s=0.01, requests_burst=2)
    with porch.visit() as visitor:
        visitor.wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        raw = b""
        with contextlib.suppress(OSError):
            while piece := visitor.wire.recv(65_536):
                raw += piece
    assert raw.count(b"HTTP/1.1 200") == 2
    assert raw.count(b"HTTP/1.1 429") == 1


def test_who_asks_without_reading_and_ends_holds_no_place_for_ever(
    paths: Paths, settings: Settings
) -> None:
    """Asyncio waits without a bound when the end comes while nothing is read (row 35).

    Every such connection stayed open, until there was room for nobody.
    """
    limits = Limits(end_s=0.3, answer_s=0.3, requests_per_s=10, requests_burst=40)
    with StubBroker(paths, {}) as broker, House(paths, Service.GATEWAY) as house:
        yard = Yard(paths, settings, house, broker, limits)
        yard.open()
        place = ("127.0.0.1", yard.enroll)
        for _ in range(5):
            with (
                socket.create_connection(place, timeout=10) as bare,
                yard.stranger().wrap_socket(bare, server_hostname=SERVER_NAME) as wire,
            ):
                wire.settimeout(0.5)
                with contextlib.suppress(OSError):
                    for _ in range(200):
                        wire.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
                bare_end(wire)
                eventually(lambda: yard.gateway.enroll.connections == 0, within_s=30)


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
SHAPES = {
    "both lengths": b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two lengths": b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n"
    b"Content-Length: 36\r\n\r\n" + SMUGGLED,
    "a signed length": b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: +0\r\n\r\n"
    + SMUGGLED,
    "an unknown coding": b"POST /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n"
    + SMUGGLED,
    "a space before the colon": b"POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length : 36\r\n\r\n"
    + SMUGGLED,
    "a folded header": b"POST /healthz HTTP/1.1\r\nHost: a\r\nX: y\r\n Content-Length: 36\r\n\r\n"
    + SMUGGLED,
    "a chunk size that is none": b"POST /healthz HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + SMUGGLED,
    "bare line feeds": b"GET /healthz HTTP/1.1\nHost: a\n\n" + SMUGGLED,
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED,
    "an upgrade": b"GET /none HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
    b"Content-Length: 36\r\n\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_request_has_one_reading(build: Build, shape: str) -> None:
    """What two servers could read in two ways is refused, and what follows is not answered.

    (row 35)
    """
    porch = build()
    with porch.visit() as visitor:
        visitor.wire.sendall(SHAPES[shape])
        visitor.wire.shutdown(socket.SHUT_WR)
        raw = b""
        with contextlib.suppress(OSError):
            while piece := visitor.wire.recv(65_536):
                raw += piece
    statuses = [int(line.split()[1]) for line in raw.split(b"\r\n") if line.startswith(b"HTTP/1.1")]
    assert len(statuses) <= 1, raw
    assert all(400 <= status < 500 for status in statuses), raw
    with porch.visit("192.0.2.2") as visitor:
        assert visitor.ask("GET", "/healthz").status == 200


def test_what_strangers_make_a_library_say_is_said_once_a_minute() -> None:
    """Fifteen hundred lines in six seconds were no news after the first; tracebacks are."""
    once = OnceAMinute()

    def record(text: str, at: float, **more: object) -> logging.LogRecord:
        return logging.makeLogRecord({"msg": text, "created": at, **more})

    assert once.filter(record("SSL connection is closed", 0.0))
    assert not any(once.filter(record("SSL connection is closed", 1.0)) for _ in range(1500))
    assert once.filter(record("something else", 1.0))
    assert once.filter(record("SSL connection is closed", EVERY_S))
    assert all(once.filter(record("failed", 0.0, exc_info=(None, None, None))) for _ in range(3))
