"""Runs doors on an event loop in a thread, and talks to them as a stranger would."""

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from broker.client import AsyncLink
from broker.runtime.paths import Paths
from broker.wire.ids import Service
from tests.workers.tls_lab import SERVER_NAME
from workers.door import Door
from workers.lifetime import Doors, Rounds
from workers.route import Asker

T = TypeVar("T")
D = TypeVar("D", bound=Doors)


@dataclass(frozen=True)
class Said:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


class Notebook:
    """Remembers what a link would have beaten."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.errors: list[str] = []

    def note(self, *, state: str = "", error: str = "") -> None:
        """Remember."""
        self.states.append(state)
        self.errors.append(error)


class House:
    """An event loop in a thread with a link to the (stub) broker."""

    def __init__(self, paths: Paths, service: Service) -> None:
        self._paths = paths
        self._service = service
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._live, name="house", daemon=True)
        self._end: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.link: AsyncLink | None = None
        self.closing: list[Callable[[], Coroutine[Any, Any, None]]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the house hangs"

    def do(self, act: Callable[[], T]) -> T:
        """Return what `act` returns on the loop."""

        async def run() -> T:
            return act()

        return self.wait(run())

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns on the loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def furnish(self, build: Callable[[Asker], D]) -> D:
        """Build doors on the loop; they are closed at the end."""

        def act() -> D:
            assert self.link is not None
            doors = build(self.link)
            self.closing.append(doors.close)
            return doors

        return self.do(act)

    def round(self, doors: Doors, notes: Notebook | None = None) -> float:
        """Run one round as the process would."""
        return self.do(Rounds(doors, notes or Notebook()).attempt)

    def _live(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = asyncio.Event()
        async with AsyncLink(self._paths, self._service, self._service.value) as link:
            self.link = link
            self._ready.set()
            await self._end.wait()
            for close in self.closing:
                await close()


def port_of(door: Door) -> int:
    """Return the port a door listens on."""
    assert door._listener is not None
    return int(door._listener.getsockname()[1])


class Visitor:
    """One keep-alive connection over TLS or a Unix socket, as an honest client keeps it."""

    def __init__(self, wire: socket.socket) -> None:
        self.wire = wire
        self.http = http.client.HTTPConnection("atlas", timeout=5)
        self.http.sock = wire
        self.http.auto_open = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        self.wire.close()

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Said:
        """Send one request and return the answer; `body` becomes JSON unless it is bytes."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self.http.request(method, path, raw, dict(headers or {}))
        answer = self.http.getresponse()
        return Said(answer.status, dict(answer.headers), answer.read())

    @property
    def served_serial(self) -> str:
        """Serial of the certificate this connection was opened with."""
        assert isinstance(self.wire, ssl.SSLSocket)
        shown = self.wire.getpeercert()
        assert shown
        return str(shown["serialNumber"]).lower().lstrip("0")


@contextlib.contextmanager
def visit(port: int, context: ssl.SSLContext, name: str | None = SERVER_NAME) -> Iterator[Visitor]:
    """Open a TLS connection; a client without `name` sends no SNI."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=5)
    with contextlib.ExitStack() as stack:
        stack.callback(plain.close)
        if name is None:
            context.check_hostname = False
        wire = stack.enter_context(context.wrap_socket(plain, server_hostname=name))
        yield stack.enter_context(Visitor(wire))


@contextlib.contextmanager
def visit_unix(path: Path) -> Iterator[Visitor]:
    """Open a connection to a Unix socket."""
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    wire.settimeout(5)
    with wire:
        wire.connect(str(path))
        with Visitor(wire) as visitor:
            yield visitor


def is_refused(port: int, context: ssl.SSLContext) -> bool:
    """Return whether a caller with `context` gets no answer at all.

    Under TLS 1.3 a client learns of the refusal of its certificate only when it reads.
    """
    try:
        with visit(port, context) as visitor:
            visitor.ask("GET", "/v1/whoami")
    except (OSError, http.client.HTTPException):
        return True
    return False
