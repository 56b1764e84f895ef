"""One connection of a link: sends, receives, and knows whether a broker is there."""

from typing import Any, Protocol

import zmq

from broker.client.protocol import away
from broker.errors import MeshError, UnavailableError
from broker.runtime.paths import Paths
from broker.runtime.sockets import dealer

PlainContext = zmq.Context["zmq.Socket[bytes]"]


class Lane:
    """One DEALER, and how often it has been connected.

    `trouble` is why the other side does not let this process in, as far as that can be known.
    """

    def __init__(self, socket: "zmq.Socket[bytes]") -> None:
        self.socket = socket
        self.trouble: MeshError | None = None
        self.connected = False
        self.connections = 0

    def look(self) -> bool:
        """Return whether a broker is connected now."""
        writable = bool(self._events() & zmq.POLLOUT)
        if writable and not self.connected:
            self.connections += 1
        self.connected = writable
        return writable

    def send(self, frames: list[bytes]) -> bool:
        """Return whether `frames` are on their way."""
        if not self.look():
            return False
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> list[bytes] | None:
        """Return the frames of one answer, None when there is none."""
        try:
            return self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    def has_answers(self) -> bool:
        """Return whether `receive` would return something."""
        return bool(self._events() & zmq.POLLIN)

    def _events(self) -> int:
        events: Any = self.socket.getsockopt(zmq.EVENTS)
        return int(events)

    def absence(self, timeout_ms: int) -> UnavailableError:
        """Return the error of a call that never reached a broker."""
        return away(timeout_ms)

    def close(self) -> None:
        """Close the socket; what was not sent yet is dropped."""
        self.socket.close(linger=0)


class Door(Protocol):
    """How a link reaches its broker."""

    def lanes(self, context: PlainContext, identity: bytes) -> tuple[Lane, Lane]:
        """Return the urgent lane and the ordinary one, connecting; they may be the same."""
        ...


class LocalDoor:
    """The broker of this machine: two sockets in its run directory."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def lanes(self, context: PlainContext, identity: bytes) -> tuple[Lane, Lane]:
        """Return both lanes; they carry one identity, so READY on one registers both."""
        return (
            Lane(dealer(context, self._paths.control_socket, identity)),
            Lane(dealer(context, self._paths.requests_socket, identity)),
        )
