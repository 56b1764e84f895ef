"""Every way out of this node, against every way in which a server can be bad (row 33) (P10).

A server of the right CA sends whatever a table says. Each call has to come back inside its deadline
with an error that the loops know, follow no redirect, and keep little of what came.
"""

import contextlib
import gzip
import resource
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
import requests

from broker.clock import boottime_ms
from broker.errors import MalformedMessageError, MeshError
from broker.runtime.paths import Paths
from broker.wire.node import Endpoint
from broker.wire.roster import WhoAmIAnswer
from tests.workers.small_ca import DOMAIN, SmallCA
from tests.workers.test_peer import enrolled
from workers.peer import PeerSession, probe_root
from workers.webcall import post_web, web_session
from workers.wires import Wires

TIMEOUT_S = 0.3
SPENT_MS_MAX = 6_000
"""The deadline is 0.3 s; the rest is for a machine that is busy with other things."""
GROWTH_KIB_MAX = 50 * 1024
DRIP_S = 0.05
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
Send = Callable[[ssl.SSLSocket, threading.Event], None]


def saying(*pieces: bytes) -> Send:
    """Send these bytes and close."""

    def send(wire: ssl.SSLSocket, _end: threading.Event) -> None:
        for piece in pieces:
            wire.sendall(piece)

    return send


def holding(*pieces: bytes) -> Send:
    """Send these bytes and leave the connection open."""

    def send(wire: ssl.SSLSocket, end: threading.Event) -> None:
        saying(*pieces)(wire, end)
        end.wait(30)

    return send


def dripping(first: bytes, drop: bytes) -> Send:
    """Send a drop now and then, without an end."""

    def send(wire: ssl.SSLSocket, end: threading.Event) -> None:
        wire.sendall(first)
        while not end.wait(DRIP_S):
            wire.sendall(drop)

    return send


def pouring(first: bytes, bucket: bytes) -> Send:
    """Send as fast as it is taken, without an end."""

    def send(wire: ssl.SSLSocket, end: threading.Event) -> None:
        wire.sendall(first)
        while not end.is_set():
            wire.sendall(bucket)

    return send


def resetting(wire: ssl.SSLSocket, _end: threading.Event) -> None:
    """Begin to answer, then cut the connection with a reset."""
    wire.sendall(OK + b"Content-Length: 100\r\n\r\n{")
    wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wire.shutdown = lambda _how: None  # type: ignore[assignment]  # or the reset would be an end


BOMB = gzip.compress(b" " * 256 * 1024 * 1024, 1)
MODES: dict[str, Send] = {
    "hung": holding(),
    "closed at once": saying(),
    "headers that drip": dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
    "headers without end": pouring(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 60_000 + b"\r\n"),
    "a body that drips": dripping(OK + b"Content-Length: 100000\r\n\r\n", b" "),
    "a body without end": pouring(OK + b"\r\n", b" " * 65_536),
    "chunks without end": pouring(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"8\r\n        \r\n"),
    "a chunk of a gigabyte": pouring(
        OK + b"Transfer-Encoding: chunked\r\n\r\n3fffffff\r\n", b" " * 65_536
    ),
    "a gigabyte promised": holding(OK + b"Content-Length: 1073741824\r\n\r\n{"),
    "a gigabyte sent": pouring(OK + b"Content-Length: 1073741824\r\n\r\n", b" " * 65_536),
    "a bomb": saying(
        OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(BOMB), BOMB
    ),
    "garbage for a status": saying(b"\xff\xfe\x00 what\r\n\r\n"),
    "a negative length": saying(OK + b"Content-Length: -1\r\n\r\n{}"),
    "a web page": saying(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>"
    ),
    "another shape": saying(OK + b'Content-Length: 12\r\n\r\n{"host": 17}'),
    "deep json": saying(OK + b"Content-Length: 60000\r\n\r\n", b"[" * 60_000),
    "go on for ever": pouring(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a reset in the middle": resetting,
    "a shorter body than promised": saying(OK + b"Content-Length: 100\r\n\r\n{"),
    "a server error in words": saying(b"HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\nwhat"),
}


class BadServer:
    """Shakes hands as the node it should be, reads the request, and answers by the table."""

    def __init__(self, ca: SmallCA, home: Path, mode: Send) -> None:
        chain, key = ca.pair("atlas", (f"atlas.{DOMAIN}", "127.0.0.1"))
        pair = home / "bad.pem"
        pair.write_bytes(chain + key)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair)
        self._mode = mode
        self._end = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve, name="bad", daemon=True)
        self.asked = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            try:
                bare, _address = self._listener.accept()
            except OSError:
                return
            with bare, contextlib.suppress(OSError):
                bare.settimeout(10)
                with self._context.wrap_socket(bare, server_side=True) as wire:
                    wire.recv(65_536)
                    self.asked += 1
                    self._mode(wire, self._end)


Call = Callable[[Paths, SmallCA, Endpoint], object]


def by_mesh_port(paths: Paths, ca: SmallCA, there: Endpoint) -> object:
    """Heartbeat, probe, renewal, sweep, leaving: a question with a typed answer."""
    with PeerSession(paths, enrolled(paths, ca, there), timeout_s=TIMEOUT_S) as session:
        return session.call(there, "GET", "/v1/whoami", None, WhoAmIAnswer)


def for_octets(paths: Paths, ca: SmallCA, there: Endpoint) -> object:
    """Roster-sync: bundles and rows are verified later, here they are octets."""
    with PeerSession(paths, enrolled(paths, ca, there), timeout_s=TIMEOUT_S) as session:
        return session.fetch(there, "/v1/bundle")


def before_trust(_paths: Paths, _ca: SmallCA, there: Endpoint) -> object:
    """The first contact of a join; as `PinnedSession` and `fetch_unverified`, one session each."""
    return probe_root(f"https://127.0.0.1:{there.enroll_port}", TIMEOUT_S)


def to_a_hook(paths: Paths, ca: SmallCA, there: Endpoint) -> object:
    """Notices and approvals by webhook: whoever waits for them cuts the connection in time."""
    del paths
    context = ssl.create_default_context(cadata=ca.root_pem)
    url, wires = f"https://127.0.0.1:{there.enroll_port}/hook", Wires()
    patience = threading.Timer(TIMEOUT_S, wires.cut)
    patience.start()
    try:
        with contextlib.closing(web_session(context, url, wires)) as session:
            return post_web(session, url, b"{}", {"Content-Type": "text/plain"}, TIMEOUT_S)
    finally:
        patience.cancel()


CALLS: tuple[Call, ...] = (by_mesh_port, for_octets, before_trust, to_a_hook)
WHOLE = frozenset({"a web page", "another shape", "deep json", "a negative length"})
TAKEN: dict[Call, frozenset[str]] = {
    # What is whole and small is somebody else's to judge: octets by their signature, a hook's
    # answer by its status. Headers that were cut are taken for all that came.
    for_octets: WHOLE,
    to_a_hook: WHOLE | {"a server error in words", "headers that drip"},
}


@pytest.fixture(scope="module")
def ca() -> SmallCA:
    """The mesh's CA, and a web server's too."""
    return SmallCA()


@contextlib.contextmanager
def bad(ca: SmallCA, home: Path, mode: Send) -> Iterator[tuple[BadServer, Endpoint]]:
    """A bad server and its doors."""
    with BadServer(ca, home, mode) as server:
        there = Endpoint("atlas", ("127.0.0.1",), server.port, server.port, f"atlas.{DOMAIN}")
        yield server, there


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("mode", list(MODES))
def test_a_bad_server_costs_one_deadline_and_is_named(
    paths: Paths, ca: SmallCA, call: Call, mode: str
) -> None:
    """The error is one that loops know, and says where; the memory stays (row 33) (P10)."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with bad(ca, paths.home, MODES[mode]) as (server, there):
        began_ms = boottime_ms()
        taken = mode in TAKEN.get(call, ())
        troubles = (MeshError, requests.RequestException)
        with contextlib.suppress(*troubles) if taken else pytest.raises(troubles):
            call(paths, ca, there)
        assert boottime_ms() - began_ms < SPENT_MS_MAX
        assert server.asked >= 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < GROWTH_KIB_MAX


@pytest.mark.parametrize("call", CALLS)
def test_no_redirect_is_followed(paths: Paths, ca: SmallCA, call: Call) -> None:
    """A node that was taken over must not send us, and what we show, elsewhere (row 33)."""
    with bad(ca, paths.home, MODES["another shape"]) as (elsewhere, _):
        target = f"https://127.0.0.1:{elsewhere.port}/v1/whoami".encode()
        moved = b"HTTP/1.1 307 There\r\nLocation: " + target + b"\r\nContent-Length: 0\r\n\r\n"
        with (
            bad(ca, paths.home, saying(moved)) as (server, there),
            contextlib.suppress(MeshError, requests.RequestException),
        ):
            call(paths, ca, there)
        assert (server.asked, elsewhere.asked) == (1, 0)


@pytest.mark.parametrize("call", CALLS)
def test_a_compressed_answer_is_refused_by_name(paths: Paths, ca: SmallCA, call: Call) -> None:
    """Nobody asked for it; how far it would grow nobody knows before (row 33)."""
    small = gzip.compress(b"{}")
    head = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(small)
    with (
        bad(ca, paths.home, holding(head, small)) as (_, there),
        pytest.raises(MalformedMessageError, match="compressed"),
    ):
        call(paths, ca, there)
