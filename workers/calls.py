"""Calls to other nodes, each in a daemon thread of its own, none longer than its deadline.

There is no thread while there is no call. A thread touches nothing but its session; its answer
comes back through a queue, and a descriptor for the poller rings. A session is used by one call at
a time, and may be used by another thread later.
"""

import contextlib
import os
import select
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from broker.clock import boottime_ms
from broker.errors import PeerUnreachableError
from broker.units import Millis

GRACE_MS = 2_000
"""A call ends at its own deadline and says why; one that does not is cut off after this."""

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")


class Breakable(Protocol):
    """A session whose call another thread can end."""

    def abort(self) -> None:
        """End the call under way, and all later ones."""
        ...

    def close(self) -> None:
        """Drop open connections."""
        ...


@dataclass(slots=True)
class _Call:
    session: Breakable
    cut_ms: Millis
    within_ms: int


class Calls(Generic[K, A]):
    """The calls under way, at most one for a key."""

    def __init__(self) -> None:
        self._open: dict[K, _Call] = {}
        self._ended: SimpleQueue[tuple[K, _Call, A | Exception]] = SimpleQueue()
        self._threads = 0
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def __len__(self) -> int:
        return len(self._open)

    @property
    def threads(self) -> int:
        """How many threads have not come back, those of calls that were given up included."""
        return self._threads

    def start(self, key: K, session: Breakable, call: Callable[[], A], within_ms: int) -> None:
        """Begin a call that ends by itself within `within_ms`."""
        assert key not in self._open, f"{key!r} is being called already"
        begun = _Call(session, Millis(boottime_ms() + within_ms + GRACE_MS), within_ms)
        self._open[key] = begun
        self._threads += 1
        thread = threading.Thread(target=self._run, args=(key, begun, call), name="call")
        thread.daemon = True
        thread.start()

    def ended(self) -> dict[K, A | Exception]:
        """Return what has ended since the last look, by an answer, an error, or the deadline."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.bell)
        found: dict[K, A | Exception] = {}
        with contextlib.suppress(Empty):
            while True:
                key, call, answer = self._ended.get_nowait()
                self._threads -= 1
                if self._open.get(key) is call:
                    del self._open[key]
                    found[key] = answer
                else:
                    call.session.close()  # given up before: nobody else closes it
        for key, call in list(self._open.items()):
            if boottime_ms() >= call.cut_ms:
                self.give_up(key)
                text = f"no answer within {call.within_ms / 1000:g} s"
                found[key] = PeerUnreachableError(text)
        return found

    def wait(self, wait_ms: int) -> None:
        """Wait until a call ends, without the poller of a loop: at the end of the process."""
        poller = select.poll()
        poller.register(self.bell, select.POLLIN)
        poller.poll(max(0, wait_ms))

    def give_up(self, key: K) -> None:
        """Break off a call, if there is one; its thread ends by itself and closes the session."""
        call = self._open.pop(key, None)
        if call is not None:
            call.session.abort()

    def next_cut_ms(self) -> Millis | None:
        """Return when the first of the calls is overdue."""
        return min((call.cut_ms for call in self._open.values()), default=None)

    def close(self) -> None:
        """Break off everything; late threads end with the process."""
        for key in list(self._open):
            self.give_up(key)
        self.ended()
        if not self._threads:  # else a late thread could ring whatever has the number by then
            os.close(self.bell)

    def _run(self, key: K, begun: _Call, call: Callable[[], A]) -> None:
        try:
            answer: A | Exception = call()
        except Exception as error:  # noqa: BLE001 (a thread's outermost frame: it travels on)
            answer = error
        self._ended.put((key, begun, answer))
        with contextlib.suppress(OSError):
            os.eventfd_write(self.bell, 1)
