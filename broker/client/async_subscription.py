"""Events of the broker as an async iterator."""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import zmq.asyncio

from broker.client.subscription import event_in, topics_of
from broker.runtime.paths import Paths
from broker.runtime.sockets import subscriber
from broker.wire.base import Event
from broker.wire.messages import AnyEvent


class AsyncSubscription:
    """`async for event in subscription`; end it with `close` or as a context manager."""

    def __init__(self, paths: Paths, kinds: tuple[type[Event], ...]) -> None:
        self._context = zmq.asyncio.Context()
        self._socket = subscriber(self._context, paths.events_socket, topics_of(kinds))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; a waiting iterator is cancelled."""
        self._socket.close(linger=0)
        self._context.term()

    def __aiter__(self) -> AsyncIterator[AnyEvent]:
        return self._events()

    async def receive(self) -> AnyEvent:
        """Return the next event; bad frames are dropped."""
        while True:
            event = event_in(await self._socket.recv_multipart())
            if event is not None:
                return event

    async def _events(self) -> AsyncIterator[AnyEvent]:
        while True:
            yield await self.receive()
