"""Ask several nodes at once, with one deadline, while the loop keeps beating.

Each errand runs in a daemon thread of its own with a session of its own: a dead node costs nobody
else anything, and a thread stuck in a connect never delays the exit of the process (the threads
of `concurrent.futures` are joined at exit; these are not). Threads touch no ZeroMQ socket: they
put results into a queue and ring a descriptor that the loop's poller watches.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, Self, TypeVar

import msgspec

from broker.clock import boottime_ms
from broker.errors import NoMeshError, PeerUnreachableError
from broker.runtime.paths import Paths
from broker.wire.base import Body
from broker.wire.node import Endpoint, Membership
from workers.membership import load_membership

GRACE_MS = 50
"""An errand that ends at its own deadline still gets to say why."""

A = TypeVar("A", bound=msgspec.Struct)


class Session(Protocol):
    """What an errand talks through: the part of a `PeerSession` that loops use."""

    def call(  # noqa: PLR0913 (as that of a `PeerSession`)
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        body: Body | None,
        kind: type[A],
        *,
        timeout_s: float | None = None,
    ) -> A:
        """Return the decoded answer of `endpoint`."""
        ...

    def fetch(
        self,
        endpoint: Endpoint,
        path: str,
        body: Body | None = None,
        *,
        port: str = "mesh",
        timeout_s: float | None = None,
    ) -> bytes:
        """Return the octets at `path`, empty when there is nothing new; with a body by POST."""
        ...

    def abort(self) -> None:
        """End, from another thread, the call under way and all later ones."""
        ...

    def close(self) -> None:
        """Drop open connections."""
        ...


class Vigil(Protocol):
    """The part of a desk that waiting for others needs."""

    @property
    def paths(self) -> Paths:
        """Where this node's files are."""
        ...

    def wait(self, ms: int, /, *fds: int) -> object:
        """Sleep until a descriptor is readable, a stop is asked, or the time is over."""
        ...

    def stopping(self) -> bool:
        """Return whether the process was asked to stop."""
        ...


T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(slots=True)
class _Seat:
    """One node's session, and whether an errand uses it now."""

    session: Session
    busy: bool = False
    retired: bool = False


class Fanout(Generic[K]):
    """Parallel errands to nodes named by keys; at most one errand per node at a time.

    Args:
        open_session: Makes a session for a membership, such as `PeerSession(paths, membership)`.
    """

    def __init__(self, open_session: Callable[[Paths, Membership], Session]) -> None:
        self._open = open_session
        self._membership: Membership | None = None
        self._seats: dict[K, _Seat] = {}
        self._done: SimpleQueue[tuple[K, _Seat, object]] = SimpleQueue()
        self._errands = 0
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self,
        errands: Mapping[K, Callable[[Session], T]],
        desk: Vigil,
        deadline_ms: int,
        each: Callable[[K, T | Exception], None] | None = None,
    ) -> dict[K, T | Exception]:
        """Run all errands and return a result or the exception for each key.

        Returns early, with what is there, when the process is asked to stop. `each` is told every
        result when it is there, so that nobody's answer grows old while others are silent.

        Raises:
            NoMeshError: This node belongs to no mesh, or its membership is damaged.
        """
        self._collect(frozenset())
        membership = self._belong(desk.paths)
        answers: dict[K, T | Exception] = {}
        # A late answer to an earlier round frees its seat here or below; until then its node is
        # not asked again, so a result that arrives for a wanted key is always of this round.
        wanted = {
            key
            for key, run in errands.items()
            if self._start(key, run, lambda: self._open(desk.paths, membership))
        }
        until_ms = boottime_ms() + deadline_ms + GRACE_MS
        while len(answers) < len(wanted) and not desk.stopping():
            left_ms = until_ms - boottime_ms()
            if left_ms <= 0:
                break
            desk.wait(left_ms, self._bell)
            found: dict[K, T | Exception] = self._collect(wanted)
            answers |= found
            if each is not None:
                for key, answer in found.items():
                    each(key, answer)
        for key in errands:
            answers.setdefault(key, _silence(deadline_ms, asked=key in wanted))
        return answers

    def keep(self, keys: set[K]) -> None:
        """Close the sessions of nodes that are asked no more."""
        for key in [k for k, seat in self._seats.items() if k not in keys and not seat.busy]:
            self._seats.pop(key).session.close()

    def abandon(self, keys: Iterable[K]) -> None:
        """Break off what is still asked of these nodes; they can be asked anew at once."""
        for key in keys:
            seat = self._seats.get(key)
            if seat is not None and seat.busy:
                del self._seats[key]
                seat.retired = True
                seat.session.abort()

    def close(self) -> None:
        """Close idle sessions; a thread still under way ends with the process."""
        self._collect(frozenset())
        self._retire()
        if not self._errands:  # else a late thread could ring whatever has the number by then
            os.close(self._bell)

    def _belong(self, paths: Paths) -> Membership:
        membership = load_membership(paths)
        if membership is None:
            raise NoMeshError("this node belongs to no mesh yet", hint="run `certmesh join`")
        if membership != self._membership:
            self._retire()
        self._membership = membership
        return membership

    def _retire(self) -> None:
        """Make every next errand use a fresh session."""
        for key, seat in list(self._seats.items()):
            if seat.busy:
                seat.retired = True
            else:
                seat.session.close()
                del self._seats[key]

    def _start(
        self, key: K, run: Callable[[Session], T], open_session: Callable[[], Session]
    ) -> bool:
        seat = self._seats.get(key)
        if seat is not None and seat.busy:
            return False
        if seat is None:
            seat = self._seats[key] = _Seat(open_session())
        seat.busy = True
        self._errands += 1
        threading.Thread(target=self._run, args=(key, seat, run), daemon=True).start()
        return True

    def _run(self, key: K, seat: _Seat, run: Callable[[Session], T]) -> None:
        try:
            result: T | Exception = run(seat.session)
        except Exception as error:  # noqa: BLE001 (a thread's outermost frame: it travels on)
            result = error
        self._done.put((key, seat, result))
        with contextlib.suppress(OSError):
            os.eventfd_write(self._bell, 1)

    def _collect(self, wanted: AbstractSet[K]) -> dict[K, T | Exception]:
        """Take finished errands; late ones of an earlier round only free their seat."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        taken: dict[K, T | Exception] = {}
        with contextlib.suppress(Empty):
            while True:
                key, seat, result = self._done.get_nowait()
                current = self._seats.get(key) is seat  # else it was abandoned
                self._free(key, seat)
                if key in wanted and current:
                    taken[key] = result  # type: ignore[assignment]  # the queue holds T | Exception
        return taken

    def _free(self, key: K, seat: _Seat) -> None:
        self._errands -= 1
        seat.busy = False
        if seat.retired:
            seat.session.close()
            if self._seats.get(key) is seat:
                del self._seats[key]


def _silence(deadline_ms: int, *, asked: bool) -> PeerUnreachableError:
    if not asked:
        return PeerUnreachableError("the previous question is still unanswered")
    return PeerUnreachableError(f"no answer within {deadline_ms / 1000:g} s")
