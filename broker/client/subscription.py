"""Events of the broker, without waiting. Losing one costs an interval, never correctness."""

from types import TracebackType
from typing import Any, Self

import zmq

from broker.client.lane import PlainContext
from broker.errors import MeshError
from broker.runtime.paths import Paths
from broker.runtime.sockets import subscriber
from broker.wire.base import Event
from broker.wire.codec import decode_event
from broker.wire.messages import AnyEvent


def topics_of(kinds: tuple[type[Event], ...]) -> tuple[bytes, ...]:
    """Return the topic frames of these events."""
    return tuple(str(kind.__struct_config__.tag).encode() for kind in kinds)


def event_in(frames: list[bytes]) -> AnyEvent | None:
    """Return the event in `[topic, version, body]`, None when it is none."""
    try:
        return decode_event(frames[1:])
    except MeshError:
        return None


class Subscription:
    """The events of some kinds. Put `socket` into a poller, then `receive` until None."""

    def __init__(
        self,
        paths: Paths,
        kinds: tuple[type[Event], ...],
        *,
        context: PlainContext | None = None,
    ) -> None:
        self._own_context: PlainContext | None = None if context else zmq.Context()
        self.socket: zmq.Socket[bytes] = subscriber(
            context or self._own_context or zmq.Context(), paths.events_socket, topics_of(kinds)
        )

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
        """Close the socket."""
        self.socket.close(linger=0)
        if self._own_context is not None:
            self._own_context.term()

    def receive(self) -> AnyEvent | None:
        """Return one waiting event, None when there is none; bad frames are dropped."""
        while True:
            try:
                frames: Any = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return None
            event = event_in(frames)
            if event is not None:
                return event
