"""Events of the broker as an async iterator, over the plain subscription.

ZeroMQ's descriptor is edge-triggered: it says that something changed, so events are taken until
there is none before it is waited for again.
"""

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import zmq

from broker.client.subscription import Subscription
from broker.runtime.paths import Paths
from broker.wire.base import Event
from broker.wire.messages import AnyEvent


class AsyncSubscription:
    """`async for event in subscription`; end it with `close` or as a context manager."""

    def __init__(self, paths: Paths, kinds: tuple[type[Event], ...]) -> None:
        self._events = Subscription(paths, kinds)
        self._descriptor = int(str(self._events.socket.getsockopt(zmq.FD)))
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._descriptor, self._changed.set)

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
        """Close the socket; whoever still waits must be cancelled."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        self._events.close()

    def __aiter__(self) -> AsyncIterator[AnyEvent]:
        return self._receive_all()

    async def receive(self) -> AnyEvent:
        """Return the next event; bad frames are dropped."""
        while True:
            self._changed.clear()
            event = self._events.receive()
            if event is not None:
                return event
            await self._changed.wait()

    async def _receive_all(self) -> AsyncIterator[AnyEvent]:
        while True:
            yield await self.receive()
