"""The blocking link of a worker to its broker.

`ask` survives restarts of the broker: it repeats the same request id until an answer or the
caller's timeout, and never waits past it.
"""

from collections.abc import Callable
from types import TracebackType
from typing import Self

import zmq

from broker.client.exchange import Exchange, Pending
from broker.client.lane import Door, LocalDoor, PlainContext
from broker.client.protocol import (
    ASK_MS,
    R,
    is_unregistered,
    new_request_id,
    result_of,
)
from broker.clock import boottime_ms
from broker.errors import DeadlineError, MeshError
from broker.runtime.paths import Paths
from broker.units import Millis
from broker.wire.base import Request
from broker.wire.ids import Service
from broker.wire.liveness import Beat, Goodbye, Welcome
from broker.wire.messages import Answer

SLICE_MS = 50
"""Longest single wait inside `ask`: how late a lost connection or a stop signal is noticed."""

STOP_MS = 300
"""What is left to a request once the process was asked to stop."""

GOODBYE_MS = 100
BEAT_EVERY_MS = 1000
"""Until the broker has said how often it wants to be told."""


class Link:
    """Requests of one process, one at a time. Not for several threads.

    Args:
        place: Where the broker's sockets are: this node's paths, or another way to it.
        service: What this process is to the broker.
        instance: Unique among the processes of the service.
        context: Shared ZeroMQ context; the link makes and ends its own without it.
        stopping: Asked between waits; once it says yes a request has `STOP_MS` left.
    """

    def __init__(
        self,
        place: Paths | Door,
        service: Service,
        instance: str,
        *,
        context: PlainContext | None = None,
        stopping: Callable[[], bool] | None = None,
    ) -> None:
        self._own_context: PlainContext | None = None if context else zmq.Context()
        door = LocalDoor(place) if isinstance(place, Paths) else place
        self._exchange = Exchange(
            context or self._own_context or zmq.Context(), door, service, instance
        )
        self._stopping = stopping or (lambda: False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop what is not sent yet and close the sockets."""
        self._exchange.close()
        if self._own_context is not None:
            self._own_context.term()

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

    @property
    def beat_every_ms(self) -> int:
        """How often the broker wants a `Beat`."""
        return self.welcome.beat_every_ms if self.welcome else BEAT_EVERY_MS

    def descriptors(self) -> tuple["zmq.Socket[bytes]", ...]:
        """Return the sockets to register in a poller; call `collect` when one is readable.

        Ask again before every wait: a link to another machine takes a new one now and then.
        """
        exchange = self._exchange
        return tuple(dict.fromkeys((exchange.control.socket, exchange.ordinary.socket)))

    def ask(self, request: Request, kind: type[R], *, timeout_ms: int = ASK_MS) -> R:
        """Return the broker's reply to `request`.

        Raises:
            UnavailableError: The request never reached a broker.
            DeadlineError: It may have; the outcome is unknown.
            MeshError: The refusal, as the class of its code.
            InternalError: A reply of another kind than `kind`.
        """
        now_ms = boottime_ms()
        call = Pending(new_request_id(), request, Millis(now_ms + timeout_ms))
        stop_ms: Millis | None = None
        while now_ms < call.deadline_ms:
            self._exchange.pursue(call, now_ms)
            self._wait(call, call.deadline_ms - now_ms)
            for answer in self._exchange.collect():
                if answer.request_id != call.request_id:
                    continue  # late answer to an earlier request, or to a beat
                if not is_unregistered(answer.reply):  # the exchange sends READY, then the call
                    return result_of(answer.reply, kind)
            if self._exchange.refusal is not None:
                raise self._exchange.refusal
            now_ms = boottime_ms()
            if stop_ms is None and self._stopping():
                stop_ms = Millis(now_ms + STOP_MS)
                call.deadline_ms = min(call.deadline_ms, stop_ms)
        raise self._silence(call, timeout_ms)

    def introduce(self, *, timeout_ms: int = ASK_MS) -> Welcome:
        """Return the broker's answer to READY.

        Raises:
            UnavailableError: No broker answered in time.
            MeshError: The broker refuses this process.
        """
        deadline = boottime_ms() + timeout_ms
        call = Pending(b"", self._exchange.introduction.ready(), Millis(deadline))
        while (now_ms := boottime_ms()) < deadline and not self._stopping():
            self._exchange.keep_registered(now_ms)
            if self._exchange.registered and self.welcome is not None:
                return self.welcome
            self._wait(call, deadline - now_ms)
            self._exchange.collect()
            if self._exchange.refusal is not None:
                raise self._exchange.refusal
        raise self._exchange.control.absence(timeout_ms)

    def keep_registered(self) -> bool:
        """Send READY when needed, without waiting; return whether the broker knows us."""
        self._exchange.keep_registered(boottime_ms())
        return self._exchange.registered

    def post(self, request: Request, *, timeout_ms: int = ASK_MS) -> bytes | None:
        """Send `request` once, without waiting; return its id, None when it could not go out.

        The answer comes out of `collect`.
        """
        now_ms = boottime_ms()
        call = Pending(new_request_id(), request, Millis(now_ms + timeout_ms))
        self._exchange.pursue(call, now_ms)
        return call.request_id if call.was_sent else None

    def beat(self, beat: Beat) -> bool:
        """Send a beat without waiting; return whether it went out."""
        return self._exchange.tell(beat, self.beat_every_ms)

    def goodbye(self, reason: str) -> None:
        """Tell the broker that this process stops on purpose, and wait a moment for its Ack."""
        if self._exchange.tell(Goodbye(reason=reason), GOODBYE_MS):
            self._exchange.control.socket.poll(GOODBYE_MS)

    def collect(self) -> list[Answer]:
        """Return the answers that are here; beats and READY are taken care of."""
        return self._exchange.collect()

    def _wait(self, call: Pending, left_ms: int) -> None:
        flags = dict.fromkeys(self.descriptors(), zmq.POLLIN)
        blocked = self._exchange.waits_for_connection(call)
        if blocked is not None:
            flags[blocked.socket] = zmq.POLLIN | zmq.POLLOUT
        zmq.zmq_poll([*flags.items()], min(SLICE_MS, left_ms))

    def _silence(self, call: Pending, timeout_ms: int) -> MeshError:
        if not call.was_sent:
            return self._exchange.control.absence(timeout_ms)
        name = type(call.request).__name__
        return DeadlineError(f"the broker did not answer {name} within {timeout_ms} ms")
