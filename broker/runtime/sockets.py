"""Every ZeroMQ socket of the project, each option said out loud.

- LINGER: the default waits for ever at exit when the other side is gone.
- IMMEDIATE: nothing is queued for a broker that is not there; a request whose caller gave up must
  not be carried out later. It also makes "writable" mean "connected", see `broker.client.link`.
- No ZMTP heartbeats: over ipc the kernel reports a dead peer at once, and a heartbeat that cuts the
  connection to a frozen broker makes the client come back under an identity the broker still
  holds. A frozen peer is the business of `Beat`.
- No ROUTER_HANDOVER: nobody may take over an identity that is in use.

Over tcp, between a broker and renewal workers on other machines, three things differ:

- CURVE, and a ZAP domain that is enforced: without it libzmq lets everybody in while no ZAP handler
  is there. It is a context of its own: its own I/O thread does the cryptography of strangers.
- ZMTP heartbeats and TCP keepalive: a cable that is pulled tells nobody. The broker gives up first
  (`REMOTE_TTL_MS` < `REMOTE_TIMEOUT_MS`), so that the identity is free when the worker comes back.
- A peer that was turned away is not called again in milliseconds, and small frames are enough.
"""

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import zmq

from broker.runtime.curve import CurvePair, octets_of
from broker.runtime.files import is_shared
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
LOCAL_BACKLOG = 64
"""Connections that the kernel has taken and libzmq has not; all of them may still come in after
the broker decided to take no more (`broker.shell.localdoors`)."""
SHARED_SOCKET_MODE = 0o660
LOCAL_HANDSHAKE_MS = 5_000
"""Who connects and does not greet holds a descriptor; libzmq's own patience is half a minute."""
RECONNECT_MS = 10
RECONNECT_MS_MAX = 50
"""A killed broker is back after about 0.15 s; a wait that doubles further would be felt."""

REMOTE_FRAME_BYTES_MAX = 131_072
"""Room for one CSR (64 KiB at most) and its envelope; the largest thing a remote worker sends."""
REMOTE_QUEUED_MAX = 100
REMOTE_PING_MS = 1_000
REMOTE_TTL_MS = 3_000
REMOTE_TIMEOUT_MS = 5_000
REMOTE_HANDSHAKE_MS = 3_000
"""Who has not proved a key by then is cut off: open connections cost descriptors."""
REMOTE_RECONNECT_MS = 100
REMOTE_RECONNECT_MS_MAX = 2_000
KEEPALIVE_IDLE_S = 10
KEEPALIVE_EVERY_S = 5
KEEPALIVE_COUNT = 3
ZAP_ENDPOINT = "inproc://zeromq.zap.01"
"""RFC 27: there, and nowhere else, libzmq asks who may come in."""


def request_router(
    context: "zmq.Context[SocketT]", path: Path, uids: Collection[int] = ()
) -> SocketT:
    """Return the broker's ROUTER for ordinary requests, bound; `uids` may connect, empty: all."""
    return _router(context, path, uids)


def control_router(
    context: "zmq.Context[SocketT]", path: Path, uids: Collection[int] = ()
) -> SocketT:
    """Return the broker's ROUTER for urgent requests, bound; drain it first."""
    return _router(context, path, uids)


def publisher(context: "zmq.Context[SocketT]", path: Path, uids: Collection[int] = ()) -> SocketT:
    """Return the broker's PUB, bound; a slow subscriber loses events, nobody waits for it."""
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, EVENTS_QUEUED_MAX)
    socket.setsockopt(zmq.BACKLOG, LOCAL_BACKLOG)
    socket.setsockopt(zmq.HANDSHAKE_IVL, LOCAL_HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
    _bind_local(socket, path, uids)
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


def zap_router(context: "zmq.Context[SocketT]") -> SocketT:
    """Return the socket at which a context is asked who may come in; bind it before the door."""
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.RCVHWM, REQUESTS_QUEUED_MAX)
    socket.setsockopt(zmq.SNDHWM, ANSWERS_QUEUED_MAX)
    socket.bind(ZAP_ENDPOINT)
    return socket


def remote_router(context: "zmq.Context[SocketT]", pair: CurvePair, domain: bytes) -> SocketT:
    """Return the broker's ROUTER for workers on other machines, not bound yet.

    Args:
        context: One of its own, with `zap_router` bound in it.
        pair: The broker's key.
        domain: What the ZAP questions of this socket carry.
    """
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, BROKER_LINGER_MS)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, REMOTE_FRAME_BYTES_MAX)
    socket.setsockopt(zmq.RCVHWM, REMOTE_QUEUED_MAX)
    socket.setsockopt(zmq.SNDHWM, REMOTE_QUEUED_MAX)
    socket.setsockopt(zmq.BACKLOG, BACKLOG)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
    socket.setsockopt(zmq.ZAP_DOMAIN, domain)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    socket.setsockopt(zmq.HANDSHAKE_IVL, REMOTE_HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, REMOTE_PING_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, REMOTE_TTL_MS)
    _kept_alive(socket)
    return socket


def remote_dealer(
    context: "zmq.Context[SocketT]", pair: CurvePair, server_key: str, identity: bytes
) -> SocketT:
    """Return the DEALER of a worker on another machine, not connected yet.

    Args:
        context: Any.
        pair: The key of this machine's workers.
        server_key: The only broker that is believed, as 64 hexadecimal digits.
        identity: Unique among all connections that ever were.
    """
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.IDENTITY, identity)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.IMMEDIATE, 1)
    socket.setsockopt(zmq.SNDHWM, REMOTE_QUEUED_MAX)
    socket.setsockopt(zmq.RCVHWM, REMOTE_QUEUED_MAX)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.RECONNECT_IVL, REMOTE_RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, REMOTE_RECONNECT_MS_MAX)
    socket.setsockopt(zmq.CURVE_SERVERKEY, octets_of(server_key))
    socket.setsockopt(zmq.CURVE_PUBLICKEY, octets_of(pair.public))
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, REMOTE_HANDSHAKE_MS)
    socket.setsockopt(zmq.HANDSHAKE_IVL, REMOTE_HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, REMOTE_PING_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, REMOTE_TIMEOUT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, REMOTE_TTL_MS)
    _kept_alive(socket)
    return socket


def bind_tcp(socket: "zmq.Socket[Any]", host: str, port: int) -> int:
    """Bind to a literal address; return the port, which port 0 lets the system choose.

    Raises:
        zmq.ZMQError: The port is taken, or this machine has no such address.
    """
    socket.bind(_tcp(socket, host, port))
    bound: Any = socket.getsockopt(zmq.LAST_ENDPOINT)
    return int(bound.rstrip(b"\0").rpartition(b":")[2])


def connect_tcp(socket: "zmq.Socket[Any]", host: str, port: int) -> None:
    """Begin to connect to a literal address."""
    socket.connect(_tcp(socket, host, port))


def _tcp(socket: "zmq.Socket[Any]", host: str, port: int) -> str:
    # Port 0 is `*` to libzmq; brackets are for addresses with colons.
    socket.setsockopt(zmq.IPV6, int(":" in host))
    return f"tcp://[{host}]:{port or '*'}" if ":" in host else f"tcp://{host}:{port or '*'}"


def monitor(
    context: "zmq.Context[SocketT]", socket: "zmq.Socket[Any]", events: zmq.Event
) -> SocketT:
    """Return a socket that tells what happens to the connections of another one.

    Without a high-water mark: libzmq's own thread would wait for a reader, holding a lock that
    closing the monitored socket needs too. Its reader drains it at every turn.
    """
    address = f"inproc://monitor-{os.urandom(8).hex()}"
    socket.monitor(address, events)
    watching = context.socket(zmq.PAIR)
    watching.setsockopt(zmq.LINGER, 0)
    watching.setsockopt(zmq.RCVHWM, 0)
    watching.connect(address)
    return watching


def endpoint(path: Path) -> str:
    """Return the ZeroMQ address of a socket file."""
    return f"ipc://{path}"


def _router(context: "zmq.Context[SocketT]", path: Path, uids: Collection[int]) -> SocketT:
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, BROKER_LINGER_MS)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.ROUTER_HANDOVER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.RCVHWM, REQUESTS_QUEUED_MAX)
    socket.setsockopt(zmq.SNDHWM, ANSWERS_QUEUED_MAX)
    socket.setsockopt(zmq.BACKLOG, LOCAL_BACKLOG)
    socket.setsockopt(zmq.HANDSHAKE_IVL, LOCAL_HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
    _bind_local(socket, path, uids)
    return socket


def _bind_local(socket: "zmq.Socket[Any]", path: Path, uids: Collection[int]) -> None:
    """Bind to a socket file; libzmq closes the connections of other users as it accepts them.

    The directory keeps them out already. Its mode is one command away from being wrong.
    """
    for uid in uids:
        socket.setsockopt(zmq.IPC_FILTER_UID, uid)
    socket.bind(endpoint(path))
    if is_shared(path.parent):
        # The users of this node; whoever may pass the directory is in their group.
        path.chmod(SHARED_SOCKET_MODE)


def _connecting(socket: "zmq.Socket[Any]") -> None:
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
    socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0)


def _kept_alive(socket: "zmq.Socket[Any]") -> None:
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    socket.setsockopt(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_EVERY_S)
    socket.setsockopt(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT)
