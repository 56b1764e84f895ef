"""A broker, a desk and members for a sweep under test, in one process: the real interfaces."""

import select
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from broker.clock import boottime_ms
from broker.errors import LeaseLostError, MeshError, PeerUnreachableError
from broker.runtime.paths import Paths
from broker.runtime.settings import Renewal, parse_settings
from broker.wire.base import Body, Request
from broker.wire.control import Ack
from broker.wire.enrollment import Issued
from broker.wire.mesh_api import InstallBody, RekeyBody
from broker.wire.node import Endpoint
from broker.wire.renewal import InstallAnswer, RekeyAnswer, RenewalAnswer, RenewWithLease
from broker.wire.work import (
    CompleteWork,
    Lease,
    LeaseWork,
    ReleaseLease,
    RenewMember,
    WorkAnswer,
)
from workers.renewed import Tally
from workers.sweep import Sweep

TERM = 7


def policy(**changes: Any) -> Renewal:
    """Return `[renewal]` with these settings."""
    return parse_settings({"renewal": changes}, "sweep settings").renewal


def member(host: str) -> RenewMember:
    """Return the work of renewing `host`."""
    doors = Endpoint(host, ("127.0.0.1",), 1, 1, f"{host}.test.internal")
    return RenewMember(host, "cd", doors, "1", 0, TERM)  # type: ignore[arg-type]  # not looked at


class Book:
    """A broker: hands out members, signs, takes results; `refusals` come before its answers."""

    def __init__(self, hosts: Iterable[str] = (), *, ttl_ms: int = 60_000) -> None:
        self.due = [member(host) for host in hosts]
        self.ttl_ms = ttl_ms
        self.granted: dict[int, str] = {}
        self.asked: list[Request] = []
        self.posted: list[Request] = []
        self.signed: Counter[str] = Counter()
        self.results: dict[str, Any] = {}
        self.released: list[str] = []
        self.refusals: dict[type[Request], list[MeshError]] = {}
        self.local_waits = False
        self.next_in_ms = 5000
        self.before: Callable[[Request], None] = lambda _: None
        self.after_post: Callable[[], None] = lambda: None

    def ask(self, request: Request, kind: type[Any], /) -> Any:
        """Answer as the broker does."""
        self.asked.append(request)
        self.before(request)
        waiting = self.refusals.get(type(request))
        if waiting:
            raise waiting.pop(0)
        reply = self._reply(request)
        assert isinstance(reply, kind)
        return reply

    def post(self, request: Request, /) -> None:
        """Take what nobody waits for."""
        self.posted.append(request)
        self.after_post()

    def first(self) -> Lease:
        """Return the lease that a sweep begins with."""
        lease = self._lease(LeaseWork()).lease
        assert lease is not None
        return lease

    def lose(self, host: str) -> None:
        """End the lease of a member."""
        self.granted = {number: name for number, name in self.granted.items() if name != host}

    def _reply(self, request: Request) -> object:
        match request:
            case LeaseWork():
                assert not request.local
                return self._lease(request)
            case RenewWithLease():
                host = self._holder(request.lease_id)
                self.signed[host] += 1
                return RenewalAnswer(issued(host))
            case CompleteWork():
                self.results[self._holder(request.lease_id)] = request.result
                del self.granted[request.lease_id]
            case ReleaseLease():
                self.released.append(self._holder(request.lease_id))
                del self.granted[request.lease_id]
            case _:
                raise AssertionError(f"a sweep has no business with {request}")
        return Ack()

    def _lease(self, _: LeaseWork) -> WorkAnswer:
        if self.local_waits:
            return WorkAnswer(None, 0, local_waits=True)
        if not self.due:
            return WorkAnswer(None, self.next_in_ms)
        item = self.due.pop(0)
        number = len(self.asked) + 1
        self.granted[number] = item.host
        return WorkAnswer(Lease(number, self.ttl_ms, item), 0)

    def _holder(self, lease_id: int) -> str:
        if lease_id not in self.granted:
            raise LeaseLostError(f"lease {lease_id} is over")
        return self.granted[lease_id]


def issued(host: str) -> Issued:
    """Return a certificate that says whose it is."""
    return Issued("1f", host.encode(), b"issuing", b"root", 0, 0, 0)  # type: ignore[arg-type]  # not looked at


class Town:
    """The members: each call is noted; `says` decides what comes of it and may block."""

    def __init__(self, says: Callable[[str, str], Any] | None = None) -> None:
        self.says = says or (lambda _host, _step: None)
        self.calls: list[tuple[str, str]] = []
        self.timeouts: dict[str, float] = {}
        self.bodies: list[Body] = []
        self.open: set[int] = set()
        self.in_call = 0
        self.in_call_max = 0
        self.lock = threading.Lock()

    def session(self) -> "TownSession":
        """Open a session."""
        return TownSession(self)

    def steps(self, host: str) -> list[str]:
        """Return what was asked of one member, in order."""
        return [step for name, step in self.calls if name == host]


class TownSession:
    """The part of a `PeerSession` that a sweep uses."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self.broken = threading.Event()
        town.open.add(id(self))

    def call(  # noqa: PLR0913 (as that of a `PeerSession`)
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        body: Body | None,
        kind: type[Any],
        *,
        timeout_s: float | None = None,
    ) -> Any:
        """Answer as the member does."""
        assert method == "POST"
        assert body is not None
        step = path.rpartition("/")[2]
        town, host = self._town, endpoint.host
        with town.lock:
            town.calls.append((host, step))
            town.bodies.append(body)
            town.timeouts[step] = timeout_s or 0
            town.in_call += 1
            town.in_call_max = max(town.in_call_max, town.in_call)
        try:
            said = town.says(host, step)
            if said is Ellipsis:
                self.broken.wait(30)
                raise PeerUnreachableError("cut off")
        finally:
            with town.lock:
                town.in_call -= 1
        if isinstance(said, Exception):
            raise said
        if isinstance(said, InstallAnswer):
            return said
        answer = RekeyAnswer(host.encode()) if step == "csr" else InstallAnswer("1f", "served", "")
        assert isinstance(body, RekeyBody if step == "csr" else InstallBody)
        assert isinstance(answer, kind)
        return answer

    def fetch(self, *_: object, **__: object) -> bytes:
        """Belong to the interface; a sweep fetches nothing."""
        raise AssertionError("a sweep fetches nothing")

    def abort(self) -> None:
        """End the call under way."""
        self.broken.set()

    def close(self) -> None:
        """Be closed."""
        self._town.open.discard(id(self))


class Seat:
    """A desk: waits on descriptors, and is told to stop by the test."""

    def __init__(self) -> None:
        self.asked_to_stop = False
        self.waits = 0
        self.paths: Paths = Path("/nonexistent")  # type: ignore[assignment]  # a sweep reads no file

    def wait(self, ms: int, /, *fds: int) -> None:
        """Sleep until a descriptor is readable, or the time is over."""
        self.waits += 1
        poller = select.poll()
        for descriptor in fds:
            poller.register(descriptor, select.POLLIN)
        poller.poll(0 if self.asked_to_stop else ms)

    def stopping(self) -> bool:
        """Return whether a stop was asked."""
        return self.asked_to_stop


def sweep(book: Book, town: Town, seat: Seat | None = None, **settings: Any) -> tuple[Tally, int]:
    """Run a sweep to its end; return its tally and how many milliseconds it took."""
    desk, tally, began_ms = seat or Seat(), Tally(), boottime_ms()
    found = Sweep(book, desk, town.session, policy(**settings))
    try:
        found.run(book.first(), tally)
    finally:
        found.close()
    return tally, boottime_ms() - began_ms
