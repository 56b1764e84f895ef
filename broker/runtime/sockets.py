"""Every ZeroMQ socket of the project, each option said out loud.

- LINGER: the default waits for ever at exit when the other side is gone.
- IMMEDIATE: nothing is queued for a broker that is not there; a request whose caller gave up must
  not be carried out later. It also makes "writable" mean "connected", see `broker.client.link`.
- No ZMTP heartbeats: over ipc the kernel reports a dead peer at once, and a heartbeat that cuts the
  connection to a frozen broker makes the client come back under an identity the broker still
  holds. A frozen peer is the business of `Beat`.
- No ROUTER_HANDOVER: nobody may take over an identity that is in use.
"""

from pathlib import Path
from typing import Any, TypeVar

import zmq

from broker.wire.codec import MESSAGE_BYTES_MAX

SocketT = TypeVar("SocketT", bound="zmq.Socket[Any]")

FRAME_BYTES_MAX = MESSAGE_BYTES_MAX + 1024
"""A larger frame ends the connection; a slightly too large body still gets its typed refusal."""

REQUESTS_QUEUED_MAX = 1000
ANSWERS_QUEUED_MAX = 1000
CALLS_QUEUED_MAX = 1000
EVENTS_QUEUED_MAX = 1000
BROKER_LINGER_MS = 100
BACKLOG = 256
RECONNECT_MS = 10
RECONNECT_MS_MAX = 50
"""A killed broker is back after about 0.15 s; a wait that doubles further would be felt."""


def request_router(context: "zmq.Context[SocketT]", path: Path) -> SocketT:
    """Return the broker's ROUTER for ordinary requests, bound."""
    return _router(context, path)


def control_router(context: "zmq.Context[SocketT]", path: Path) -> SocketT:
    """Return the broker's ROUTER for urgent requests, bound; drain it first."""
    return _router(context, path)


def publisher(context: "zmq.Context[SocketT]", path: Path) -> SocketT:
    """Return the broker's PUB, bound; a slow subscriber loses events, nobody waits for it."""
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, EVENTS_QUEUED_MAX)
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
    socket.bind(endpoint(path))
    return socket


def dealer(context: "zmq.Context[SocketT]", path: Path, identity: bytes) -> SocketT:
    """Return a caller's DEALER, connecting; `identity` must be unique among all processes."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.SNDHWM, CALLS_QUEUED_MAX)
    socket.setsockopt(zmq.RCVHWM, ANSWERS_QUEUED_MAX)
    _connecting(socket)
    socket.connect(endpoint(path))
    return socket


def subscriber(context: "zmq.Context[SocketT]", path: Path, topics: tuple[bytes, ...]) -> SocketT:
    """Return a SUB for `topics`, connecting."""
    socket = context.socket(zmq.SUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.RCVHWM, EVENTS_QUEUED_MAX)
    _connecting(socket)
    for topic in topics:
        socket.setsockopt(zmq.SUBSCRIBE, topic)
    socket.connect(endpoint(path))
    return socket


def endpoint(path: Path) -> str:
    """Return the ZeroMQ address of a socket file."""
    return f"ipc://{path}"


def _router(context: "zmq.Context[SocketT]", path: Path) -> SocketT:
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, BROKER_LINGER_MS)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.RCVHWM, REQUESTS_QUEUED_MAX)
    socket.setsockopt(zmq.SNDHWM, ANSWERS_QUEUED_MAX)
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
    socket.bind(endpoint(path))
    return socket


def _connecting(socket: "zmq.Socket[Any]") -> None:
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
