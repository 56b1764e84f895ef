"""A broker with real sockets in a thread: its own loop, its own ledger, a port for other machines.

Grants are a table of the test (`grants`), asked as the real one is. `visit` runs a function between
two turns of the loop, in its thread.
"""

import socket
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, cast

import zmq

from broker.client import Link
from broker.client.remote import RemoteDoor
from broker.core.remote import RemoteGrant
from broker.runtime.curve import CurvePair, new_pair
from broker.runtime.sockets import control_router, publisher, request_router
from broker.runtime.stop import StopSignal
from broker.shell.listener import remote_listener
from broker.shell.loop import Loop
from broker.shell.state import BrokerState
from broker.wire.ids import Service
from tests.shell.office import Office
from tests.support import eventually

T = TypeVar("T")
HERE = "127.0.0.1"


class Bell:
    """The stop signal as the loop sees it; it also rings for visitors."""

    def __init__(self) -> None:
        self._reader, self._writer = socket.socketpair()
        self._reader.settimeout(0)
        self.visitors: deque[Callable[[], None]] = deque()
        self.stop = False

    def fileno(self) -> int:
        """Return the descriptor for the poller."""
        return self._reader.fileno()

    def requested(self) -> bool:
        """Let the visitors in, and return whether to stop."""
        self._reader.recv(512)
        while self.visitors:
            self.visitors.popleft()()
        return self.stop

    def ring(self) -> None:
        """Wake the loop."""
        self._writer.send(b"\0")

    def close(self) -> None:
        """Close both ends."""
        self._reader.close()
        self._writer.close()


class RemoteOffice:
    """One broker after the other on one home and one port; a context manager starts the first."""

    def __init__(self, home: Path, **sections: Any) -> None:
        self._sections = {"listen": {"workers": f"{HERE}:{free_port()}"}, **sections}
        self._home = home
        self._thread: threading.Thread | None = None
        self.grants: dict[str, RemoteGrant] = {}
        self.office: Office | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start a broker and wait until its loop turns; its remote port may still be shut."""
        self._bell = Bell()
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, args=(started,), daemon=True)
        self._thread.start()
        try:
            started.result(10)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop it as SIGKILL would: nobody is told."""
        if self._thread is None:
            return
        self._bell.stop = True
        self._bell.ring()
        self._thread.join(10)
        assert not self._thread.is_alive(), "the broker hangs"
        self._bell.close()
        self._thread = None

    def visit(self, what: Callable[[BrokerState], T]) -> T:
        """Return what a function says of the broker's state, between two turns."""
        seen: Future[T] = Future()
        office = self.office
        assert office is not None

        def come() -> None:
            try:
                seen.set_result(what(office.desk.state))
            except BaseException as error:  # noqa: BLE001 (raised again in the test's thread)
                seen.set_exception(error)

        self._bell.visitors.append(come)
        self._bell.ring()
        return seen.result(10)

    def open_port(self) -> tuple[int, str]:
        """Return port and server key once the port is open."""
        port = eventually(lambda: self.visit(lambda state: state.remote_port.port))
        return port, self.visit(lambda state: state.remote_port.server_key)

    def grant(self, host: str = "nas", pair: CurvePair | None = None) -> CurvePair:
        """Return a pair that is granted to the workers of `host`."""
        pair = pair or new_pair()
        grant = RemoteGrant(f"{len(self.grants):032x}", host, "ab" * 16, pair.public)
        self.grants[pair.public] = grant
        return pair

    def door(self, pair: CurvePair, server_key: str = "") -> RemoteDoor:
        """Return the way here with a key."""
        port, own = self.open_port()
        return RemoteDoor((HERE,), port, server_key or own, pair)

    def link(self, pair: CurvePair, instance: str = "remote-renewal-0", **door: str) -> Link:
        """Return a link of a worker on another machine."""
        return Link(self.door(pair, **door), Service.REMOTE_RENEWAL, instance)

    def local(self, service: Service, instance: str = "") -> Link:
        """Return a link of a process on the broker's machine."""
        assert self.office is not None
        return Link(self.office.paths, service, instance or service.value)

    def workers(self) -> dict[str, str]:
        """Return liveness by instance."""
        return self.visit(lambda state: {w.instance: w.liveness for w in state.workers.everyone()})

    def _serve(self, started: "Future[None]") -> None:
        try:
            if self.office is None:
                self.office = Office.create(self._home, **self._sections)
            else:
                # The connection belongs to a thread that is gone; a new life opens its own.
                self.office.desk = Office._desk(self.office.settings, self.office.paths)
            self._loop(self.office, started)
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    def _loop(self, office: Office, started: "Future[None]") -> None:
        state, paths = office.desk.state, office.paths
        state.grant_of = self.grants.get
        paths.run.mkdir(mode=0o700, exist_ok=True)
        with zmq.Context() as context:
            control = control_router(context, paths.control_socket)
            requests = request_router(context, paths.requests_socket)
            events = publisher(context, paths.events_socket)
            with control, requests, events, remote_listener(state) as remote:
                loop = Loop(
                    office.desk, control=control, requests=requests, events=events, remote=remote
                )
                started.set_result(None)
                loop.run(cast("StopSignal", self._bell))
        state.ledger.close()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server((HERE, 0)) as server:
        return int(server.getsockname()[1])
