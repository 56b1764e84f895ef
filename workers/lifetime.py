"""The life of a process that keeps doors open: one loop for the gateway and the console.

It introduces itself to the broker, runs a round at the start, on events and every half minute,
says once what is missing, and on a stop signal closes its doors before it says goodbye.
"""

import asyncio
import contextlib
import os
import signal
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable, Iterator
from typing import Protocol

from broker.client import AsyncLink, AsyncSubscription
from broker.errors import MeshError, SettingsError
from broker.runtime.events import EventName
from broker.runtime.exits import Exit
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.wire.base import Event
from broker.wire.ids import Service
from workers.chatter import quieten
from workers.process import OUTDATED, instance_name
from workers.route import Asker

BACKOFF_S_MIN = 0.2
BACKOFF_S_MAX = 3.0
LOOK_S = 1.0
TLS_READ_BYTES = 32_768
"""What one TLS connection reads at a time, and so its buffer: asyncio's own is 256 KiB for each of
a thousand connections, which is the memory of a small machine. Two TLS records are 32 KiB."""
RECHECK_S = 30.0
"""A lost event costs at most this long."""


@contextlib.contextmanager
def stop_event() -> Iterator[asyncio.Event]:
    """Yield an event that the first SIGTERM or SIGINT sets; the second one leaves at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def ask() -> None:
        if stop.is_set():
            os._exit(Exit.INTERRUPTED)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def wait_for_any(seconds: float, *events: asyncio.Event) -> None:
    """Return when one of the events is set, or after `seconds`."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


class Backoff:
    """Doubles from a fifth of a second to three, and starts again after a success."""

    def __init__(self) -> None:
        self._next_s = BACKOFF_S_MIN

    def failed(self) -> float:
        """Return how long to wait now."""
        wait_s, self._next_s = self._next_s, min(self._next_s * 2, BACKOFF_S_MAX)
        return wait_s

    def succeeded(self) -> None:
        """Start from the shortest wait again."""
        self._next_s = BACKOFF_S_MIN


class Doors(Protocol):
    """What such a process keeps open."""

    @property
    def is_open(self) -> bool:
        """Whether callers are served."""
        ...

    def round(self) -> None:
        """Open what is closed, take over what is new; raises `MeshError` when it cannot."""
        ...

    async def close(self) -> None:
        """Stop accepting and finish what is in flight, for a bounded time."""
        ...


async def keep_open(
    paths: Paths,
    service: Service,
    wakes: tuple[type[Event], ...],
    build: Callable[[Asker], Doors],
    *,
    once: bool,
) -> int:
    """Keep what `build` returns open until a stop signal, or for one round; return the exit status.

    `Exit.TEMPORARY`: the broker is of another release; whoever starts this process again does it
    from the release on disk.

    Raises:
        SettingsError: It can never open with these settings.
    """
    wake = asyncio.Event()
    quieten("asyncio")
    SSLProtocol.max_size = TLS_READ_BYTES
    with stop_event() as stop:
        async with AsyncLink(paths, service, instance_name(service)) as link:
            doors = build(link)
            log(EventName.PROCESS_STARTED)
            listening = asyncio.create_task(_listen(paths, wakes, wake))
            try:
                status = await _rounds(doors, link, stop, wake, once=once)
            finally:
                listening.cancel()
                log(EventName.PROCESS_STOPPING, reason=OUTDATED if link.is_outdated() else "")
                await doors.close()
                await asyncio.gather(listening, return_exceptions=True)
    return status


async def _rounds(
    doors: Doors, link: AsyncLink, stop: asyncio.Event, wake: asyncio.Event, *, once: bool
) -> int:
    rounds = Rounds(doors, link)
    while not stop.is_set():
        wake.clear()
        wait_s = rounds.attempt()
        if once:
            return Exit.OK
        await _pause(link, wait_s, stop, wake)
        if link.is_outdated() and not stop.is_set():
            return Exit.TEMPORARY
    return Exit.OK


async def _pause(link: AsyncLink, seconds: float, *events: asyncio.Event) -> None:
    """Wait as `wait_for_any` does, but no longer once the broker is of another release."""
    left_s = seconds
    while left_s > 0 and not link.is_outdated() and not any(event.is_set() for event in events):
        await wait_for_any(min(left_s, LOOK_S), *events)
        left_s -= LOOK_S


async def _listen(paths: Paths, wakes: tuple[type[Event], ...], wake: asyncio.Event) -> None:
    if not wakes:
        return
    async with AsyncSubscription(paths, wakes) as subscription:
        async for _event in subscription:
            wake.set()


class Notes(Protocol):
    """Where the state of this process is told: an `AsyncLink`."""

    def note(self, *, state: str = "", error: str = "") -> None:
        """Set what the next beats say."""
        ...


class Rounds:
    """Runs rounds, tells their outcome, and says each reason for trouble once."""

    def __init__(self, doors: Doors, notes: Notes) -> None:
        self._doors = doors
        self._notes = notes
        self._backoff = Backoff()
        self._said = ""

    def attempt(self) -> float:
        """Run one round and return the seconds until the next.

        Raises:
            SettingsError: No later round could do better.
        """
        try:
            self._doors.round()
        except SettingsError:
            raise
        except MeshError as error:
            return self._delayed(error)
        self._said = ""
        self._notes.note(state="ready")
        self._backoff.succeeded()
        return RECHECK_S

    def _delayed(self, error: MeshError) -> float:
        if error.detail != self._said:
            log(EventName.LISTENER_DELAYED, reason=error.detail, hint=error.hint)
            self._said = error.detail
        # A door that stands open with what it had is ready, and still has something to report.
        self._notes.note(state="ready" if self._doors.is_open else error.detail, error=error.detail)
        return self._backoff.failed()
