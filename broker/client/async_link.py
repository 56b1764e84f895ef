"""The link of the asyncio processes (gateway, console): many requests in flight.

The same core as `Link`, driven by the event loop. ZeroMQ's descriptor is edge-triggered: it says
that something changed, so everything is drained whenever it fires and after every send.
"""

import asyncio
import contextlib
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import zmq

from broker.client.exchange import Exchange, Pending
from broker.client.lane import LocalDoor, PlainContext
from broker.client.link import BEAT_EVERY_MS, GOODBYE_MS, SLICE_MS
from broker.client.protocol import (
    ASK_MS,
    R,
    away,
    is_unregistered,
    new_request_id,
    promise_ms,
    result_of,
)
from broker.clock import boottime_ms, wall_s
from broker.errors import ConflictError, DeadlineError, MeshError, UnavailableError
from broker.runtime.paths import Paths
from broker.units import Millis, UnixSeconds
from broker.wire.base import Reply, Request
from broker.wire.ids import Service
from broker.wire.liveness import Beat, Goodbye, Welcome
from broker.wire.messages import Answer


@dataclass(slots=True)
class _Waiting:
    call: Pending
    answer: asyncio.Future[Reply]


class AsyncLink:
    """Requests from one event loop. `start` first; it does not wait for the broker."""

    def __init__(self, paths: Paths, service: Service, instance: str) -> None:
        self._context: PlainContext = zmq.Context()
        self._exchange = Exchange(self._context, LocalDoor(paths), service, instance)
        self._waiting: dict[bytes, _Waiting] = {}
        self._tick: asyncio.Task[None] | None = None
        self._stirred = asyncio.Event()
        self._progress = 0
        self._last_success: UnixSeconds | None = None
        self._last_error = ""
        self._state = ""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def registered(self) -> bool:
        """Whether the broker knows this process."""
        return self._exchange.registered

    @property
    def welcome(self) -> Welcome | None:
        """The broker's latest answer to READY."""
        return self._exchange.welcome

    @property
    def heard_ms(self) -> Millis | None:
        """When the broker was last heard, on the boot clock."""
        return self._exchange.heard_ms

    def is_outdated(self) -> bool:
        """Whether the broker has refused this process's wire version for a while."""
        return self._exchange.is_outdated(boottime_ms())

    @property
    def boot_id(self) -> str:
        """The random name of this process lifetime."""
        return self._exchange.introduction.boot_id

    async def start(self) -> None:
        """Begin to introduce this process, to beat, and to receive."""
        loop = asyncio.get_running_loop()
        for descriptor in self._descriptors():
            loop.add_reader(descriptor, self._drain)
        self._tick = loop.create_task(self._keep_going())

    async def close(self, reason: str = "stopping") -> None:
        """Say goodbye, fail what still waits, close the sockets."""
        if self._tick is None:
            return
        loop = asyncio.get_running_loop()
        self._tick.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._tick
        self._tick = None
        for descriptor in self._descriptors():
            loop.remove_reader(descriptor)
        if self._exchange.tell(Goodbye(reason=reason), GOODBYE_MS):
            self._exchange.control.socket.poll(GOODBYE_MS)
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(UnavailableError("this process is stopping"))
        self._exchange.close()
        self._context.term()

    def note(self, *, state: str = "", error: str = "") -> None:
        """Set what the next beats say about this process; without `error` it did well just now."""
        self._state, self._last_error = state, error
        if not error:
            self._last_success = wall_s()

    async def ask(
        self,
        request: Request,
        kind: type[R],
        *,
        timeout_ms: int = ASK_MS,
        request_id: bytes | None = None,
    ) -> R:
        """Return the broker's reply to `request`; raises as `Link.ask`.

        Raises:
            ConflictError: A request with this very `request_id` is still under way.
        """
        if request_id in self._waiting:
            raise ConflictError("the same request is under way", hint="wait for its answer")
        now_ms = boottime_ms()
        call = Pending(request_id or new_request_id(), request, Millis(now_ms + timeout_ms))
        waiting = _Waiting(call, asyncio.get_running_loop().create_future())
        self._waiting[call.request_id] = waiting
        try:
            self._exchange.pursue(call, now_ms)
            self._drain_soon()
            self._stirred.set()
            async with asyncio.timeout(timeout_ms / 1000):
                return result_of(await waiting.answer, kind)
        except TimeoutError:
            if not call.was_sent:
                raise away(timeout_ms) from None
            name = type(request).__name__
            raise DeadlineError(
                f"the broker did not answer {name} within {timeout_ms} ms"
            ) from None
        finally:
            del self._waiting[call.request_id]

    def _descriptors(self) -> tuple[int, int]:
        def number(socket: Any) -> int:
            return int(socket.getsockopt(zmq.FD))

        return number(self._exchange.control.socket), number(self._exchange.ordinary.socket)

    def _drain_soon(self) -> None:
        # Sending may have consumed the edge that announced an answer.
        if self._exchange.control.has_answers() or self._exchange.ordinary.has_answers():
            asyncio.get_running_loop().call_soon(self._drain)

    def _drain(self) -> None:
        was_registered = self._exchange.registered
        self._exchange.keep_registered(boottime_ms())
        while answers := self._exchange.collect():
            for answer in answers:
                self._deliver(answer)
        if self._exchange.refusal is not None:
            self._fail_all(self._exchange.refusal)
        if self._exchange.registered and not was_registered:
            self._pursue_all()

    def _deliver(self, answer: Answer) -> None:
        waiting = self._waiting.get(answer.request_id)
        if waiting is None or waiting.answer.done():
            return
        if not is_unregistered(answer.reply):  # the exchange sends READY, then the call again
            waiting.answer.set_result(answer.reply)

    def _fail_all(self, error: MeshError) -> None:
        for waiting in self._waiting.values():
            if not waiting.answer.done():
                waiting.answer.set_exception(
                    type(error)(error.detail, hint=error.hint, retry_after_ms=error.retry_after_ms)
                )

    def _pursue_all(self) -> None:
        now_ms = boottime_ms()
        for waiting in list(self._waiting.values()):
            if not waiting.answer.done():
                self._exchange.pursue(waiting.call, now_ms)

    async def _keep_going(self) -> None:
        """Stay registered, repeat what has no answer, beat when it is time."""
        beat_at = boottime_ms()
        while True:
            now_ms = boottime_ms()
            self._exchange.keep_registered(now_ms)
            self._pursue_all()
            if now_ms >= beat_at and self._beat():
                beat_at = Millis(now_ms + self._beat_every_ms())
            self._drain()
            await self._pause()

    async def _pause(self) -> None:
        """Wait one slice while something is under way, else until the next beat or request."""
        if self._waiting or not self._exchange.registered:
            await asyncio.sleep(SLICE_MS / 1000)
            return
        self._stirred.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._beat_every_ms() / 1000):
                await self._stirred.wait()

    def _beat_every_ms(self) -> int:
        return self.welcome.beat_every_ms if self.welcome else BEAT_EVERY_MS

    def _beat(self) -> bool:
        self._progress += 1
        beat = Beat(
            progress=self._progress,
            within_ms=promise_ms(self._beat_every_ms()),
            last_success_at=self._last_success,
            last_error=self._last_error,
            state=self._state,
        )
        return self._exchange.tell(beat, self._beat_every_ms())
