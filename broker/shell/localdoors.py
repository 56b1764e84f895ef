"""Keeps the broker alive when descriptors run short: nobody new gets in, existing callers go on.

libzmq ends the process (SIGABRT) when the listener of a socket file finds no descriptor for a new
connection, and to unbind it would end the connections that came by it. So the socket files are
renamed long before: who connects finds none, and tries again. What the kernel has taken already
still comes in, `LOCAL_BACKLOG` at most for each. Whoever has not shaken hands within
`LOCAL_HANDSHAKE_MS` is cut off.

The gauge is the lowest free descriptor: it costs a microsecond and reaches the limit when, and only
when, none is left. To open again the exact number counts, since a hole makes the gauge look low.
"""

import contextlib
import os
import resource
from collections.abc import Container, Iterator, Mapping
from pathlib import Path

import zmq

from broker.clock import boottime_ms
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.sockets import monitor
from broker.units import Millis

PlainSocket = zmq.Socket[bytes]
LOOK_EVERY_MS = 1_000
NEWS_MAX = 1_000
SHUT_ABOVE = 2
"""One part in this many may be in use; the rest is for what still comes in."""
OPEN_BELOW = 16
"""As many parts less than where it was closed; or it would open and close at every caller."""
UNLIMITED = 1_048_576


class LocalDoors:
    """The socket files, and when nobody is to find them.

    Args:
        context: That of the sockets.
        doors: The socket files and what is bound to them.
    """

    def __init__(
        self, context: "zmq.Context[PlainSocket]", doors: Mapping[Path, PlainSocket]
    ) -> None:
        self._doors = dict(doors)
        self._news = tuple(monitor(context, door, zmq.Event.ACCEPTED) for door in doors.values())
        self._anchor = os.open("/", os.O_PATH | os.O_CLOEXEC)
        soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = UNLIMITED if soft == resource.RLIM_INFINITY else soft
        self._high = limit // SHUT_ABOVE
        self._low = self._high - limit // OPEN_BELOW
        self._shut = False
        self._look_at = Millis(0)
        for path in self._doors:
            _aside(path).unlink(missing_ok=True)  # of a broker that was killed meanwhile

    @property
    def sockets(self) -> tuple[PlainSocket, ...]:
        """What wakes the loop when somebody was accepted."""
        return self._news

    @property
    def are_shut(self) -> bool:
        """Whether nobody new gets in."""
        return self._shut

    def watch(self, ready: Container[object]) -> None:
        """Take the socket files away or bring them back, as the descriptors are."""
        for news in self._news:
            if news in ready:
                _drain(news)
        if not self._shut:
            if self._lowest_free() >= self._high:
                self._close_doors()
        elif boottime_ms() >= self._look_at:
            self._look_at = Millis(boottime_ms() + LOOK_EVERY_MS)
            if _in_use() < self._low:
                self._open_doors()

    def close(self) -> None:
        """Stop watching; libzmq removes the socket files where they belong."""
        if self._shut:
            self._open_doors()
        for door, news in zip(self._doors.values(), self._news, strict=True):
            door.disable_monitor()
            news.close(linger=0)
        os.close(self._anchor)

    def _lowest_free(self) -> int:
        try:
            number = os.dup(self._anchor)
        except OSError:  # none is left
            return UNLIMITED
        os.close(number)
        return number

    def _close_doors(self) -> None:
        self._shut = True
        self._look_at = Millis(boottime_ms() + LOOK_EVERY_MS)
        for path in self._doors:
            _move(path, _aside(path))
        log(
            EventName.LISTENER_DELAYED,
            listener="local",
            reason=f"more than {self._high} descriptors are in use",
            hint="see who connects to the sockets in the run directory: `ss -xp`",
        )

    def _open_doors(self) -> None:
        self._shut = False
        for path in self._doors:
            _move(_aside(path), path)
        log(
            EventName.LISTENER_OPENED, listener="local", address=str(next(iter(self._doors)).parent)
        )


@contextlib.contextmanager
def local_doors(
    context: "zmq.Context[PlainSocket]", doors: Mapping[Path, PlainSocket]
) -> Iterator[LocalDoors]:
    """Watch the descriptors while inside."""
    watching = LocalDoors(context, doors)
    try:
        yield watching
    finally:
        watching.close()


def _in_use() -> int:
    """Return how many descriptors are open; counting them takes one, and none may be left."""
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 (only how many)
    except OSError:
        return UNLIMITED


def _drain(news: PlainSocket) -> None:
    for _ in range(NEWS_MAX):
        try:
            news.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.shut")


def _move(path: Path, target: Path) -> None:
    with contextlib.suppress(OSError):  # somebody removed it: there is nothing to close or to open
        path.rename(target)
