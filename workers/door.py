"""Doors: listening sockets behind which a bounded number of HTTP connections live.

A door accepts by itself instead of leaving it to the event loop's server, for three reasons: the
TLS context is chosen for each accepted connection, so that a new one can take over at any moment
without touching what is open or what the old one serves; connections are counted before the
handshake costs anything; and the kernel's word about a local peer can be asked for.
"""

import asyncio
import math
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_network
from socket import (
    AF_UNIX,
    IPPROTO_TCP,
    SO_PEERCRED,
    SOL_SOCKET,
    TCP_NODELAY,
    TCP_USER_TIMEOUT,
    socket,
)

from aiohttp import web

from broker.errors import ThrottledError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from workers.complaints import Complaints
from workers.connection import Connection, Limits, Origin
from workers.crowds import Crowds
from workers.problem import refusal_of
from workers.rates import Buckets

ACCEPT_AT_ONCE = 32
"""Connections accepted per wake-up, so that a flood cannot starve those already open."""
LEAVING_MAX = 16
"""Connections that have lost their place and still hold a descriptor: closing takes some turns."""
ACCEPT_PAUSE_S = 0.5
"""Pause after running out of descriptors; accepting at once would spin."""
TLS_SHUTDOWN_S = 2.0
SEND_STALL_MS = 30_000
"""A peer that acknowledges nothing for this long is gone (TCP_USER_TIMEOUT)."""
CREDENTIAL_BYTES = 12
CROWD_PREFIX = 64
"""One subscriber holds at least this much of IPv6 (RFC 6177), so caps count all of it as one."""
LOG_EVERY_S = 10.0

Serve = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
OriginOf = Callable[[socket], Origin]


def network_origin(peer: socket) -> Origin:
    """Return where a TCP connection comes from."""
    return Origin(source=plain_address(str(peer.getpeername()[0])))


def plain_address(text: str) -> str:
    """Return an address in the one form in which it is compared and issued.

    A listener for both families sees IPv4 callers as `::ffff:a.b.c.d` (RFC 4291 2.5.5.2), and the
    scope of a link-local address names an interface of this machine, which says nothing elsewhere.
    """
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return str(mapped or address)


def crowd_of(origin: Origin) -> str:
    """Return whom the connections of `origin` are counted for: a user, an IPv4 address, a /64."""
    if ":" not in origin.source or origin.uid is not None:
        return origin.source
    return str(ip_network((origin.source, CROWD_PREFIX), strict=False))


def local_origin(peer: socket) -> Origin:
    """Return which user is at the other end of a Unix socket, as the kernel knows it."""
    raw = peer.getsockopt(SOL_SOCKET, SO_PEERCRED, CREDENTIAL_BYTES)
    uid = int.from_bytes(raw[4:8], "little")  # struct ucred: pid, uid, gid (unix(7))
    return Origin(source=f"uid:{uid}", uid=uid)


@dataclass(slots=True)
class Tally:
    """Counts a refused kind of event and says when it may be logged again."""

    count: int = 0
    said_at: float = float("-inf")

    def is_due(self, now: float) -> bool:
        """Count one more and return whether to log now; bounded, whatever strangers do."""
        self.count += 1
        if now - self.said_at < LOG_EVERY_S:
            return False
        self.said_at = now
        return True

    def take(self) -> int:
        """Return the count since the last time, and forget it."""
        count, self.count = self.count, 0
        return count


class Door:
    """One listener and its connections."""

    def __init__(
        self, name: str, serve: Serve, limits: Limits, origin_of: OriginOf = network_origin
    ) -> None:
        self.name = name
        self.limits = limits
        self._loop = asyncio.get_running_loop()
        self._server = web.Server(serve)
        self._origin_of = origin_of
        self._context: ssl.SSLContext | None = None
        self._listener: socket | None = None
        self._crowds: Crowds[_Guest] = Crowds(limits.per_source, limits.connections)
        self._leaving: set[_Guest] = set()
        self._arriving = Buckets(limits.arrivals_per_s, limits.arrivals_burst)
        self._asking = Buckets(limits.requests_per_s, limits.requests_burst)
        self._empty = asyncio.Event()
        self._empty.set()
        self._arrivals: set[asyncio.Task[None]] = set()
        self._throttled, self._failed = Complaints(), Complaints()
        self._short = Tally()
        self._resume: asyncio.TimerHandle | None = None

    @property
    def connections(self) -> int:
        """How many connections are open, handshakes included."""
        return self._crowds.count

    @property
    def is_open(self) -> bool:
        """Whether new connections are accepted."""
        return self._listener is not None

    def open(self, listener: socket, context: ssl.SSLContext | None) -> None:
        """Accept on `listener` from now on; without a context there is no TLS."""
        assert self._listener is None, "a door opens once"
        listener.settimeout(0)
        self._listener = listener
        self._context = context
        self._loop.add_reader(listener, self._accept_waiting)

    def swap(self, context: ssl.SSLContext) -> None:
        """Use `context` for every connection accepted from now on; open ones stay as they are.

        Certificate, key and trust change together. Handshakes under way end with the old ones;
        the roster is asked again on every request, so that grants nobody anything.
        """
        assert self._context is not None, "a door without TLS has nothing to swap"
        self._context = context

    async def close(self) -> None:
        """Stop accepting, let requests in flight finish for a bounded time, close the rest."""
        if self._listener is None:
            return
        self._stop_accepting(self._listener)
        if self._arrivals:
            await asyncio.wait(self._arrivals, timeout=self.limits.drain_s)
        for connection in self._server.connections:
            assert isinstance(connection, Connection)
            connection.leave()
        try:
            async with asyncio.timeout(self.limits.drain_s):
                await self._empty.wait()
        except TimeoutError:
            await self._server.shutdown(timeout=0.1)

    def _stop_accepting(self, listener: socket) -> None:
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(listener)
        # What the kernel has already accepted for us would be reset by the close.
        self._accept_waiting()
        listener.close()
        self._listener = None

    def _accept_waiting(self) -> None:
        assert self._listener is not None
        for _ in range(ACCEPT_AT_ONCE):
            try:
                peer, _address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if self._short.is_due(self._loop.time()):
                    reason = error.strerror or type(error).__name__
                    log(EventName.LISTENER_DELAYED, listener=self.name, reason=reason)
                self._pause()
                return
            self._admit(peer)

    def _pause(self) -> None:
        listener = self._listener
        assert listener is not None
        self._loop.remove_reader(listener)
        self._resume = self._loop.call_later(
            ACCEPT_PAUSE_S, self._loop.add_reader, listener, self._accept_waiting
        )

    def _admit(self, peer: socket) -> None:
        try:
            origin = self._origin_of(peer)
            _tune(peer)
        except OSError:  # gone already
            peer.close()
            return
        crowd = crowd_of(origin)
        refusal = self._refusal(crowd)
        if refusal:
            peer.close()
            self._complain(self._throttled, EventName.AUTH_THROTTLED, crowd, refusal)
            return
        guest = _Guest(crowd)
        self._crowds.enter(crowd, guest)
        self._empty.clear()
        guest.arrival = self._loop.create_task(self._welcome(guest, peer, origin))
        self._arrivals.add(guest.arrival)
        guest.arrival.add_done_callback(self._arrivals.discard)

    def _refusal(self, crowd: str) -> str:
        """Return why nobody of `crowd` may come in now; empty when there is room, or it is made."""
        if not self._crowds.has_share(crowd):
            return "too many connections"
        if self._arriving.wait_s(crowd, self._loop.time()) > 0:
            return "connections too fast"
        if not self._crowds.is_full:
            return ""
        leaver = self._crowds.who_goes(crowd) if len(self._leaving) < LEAVING_MAX else None
        if leaver is None:
            return "too many connections of all sources"
        self._crowds.leave(leaver.crowd, leaver)
        self._leaving.add(leaver)
        leaver.dismiss()
        self._complain(self._throttled, EventName.AUTH_THROTTLED, leaver.crowd, "made room")
        return ""

    async def _welcome(self, guest: "_Guest", peer: socket, origin: Origin) -> None:
        context = self._context
        timeouts = (self.limits.handshake_s, TLS_SHUTDOWN_S) if context else (None, None)
        connection = guest.connection = Connection(
            self._server, origin, self.limits, lambda: self._release(guest), self._check_pace
        )
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                peer,
                ssl=context,
                ssl_handshake_timeout=timeouts[0],
                ssl_shutdown_timeout=timeouts[1],
            )
        except asyncio.CancelledError:
            self._release(guest)
            raise
        except (OSError, ssl.CertificateError) as error:
            self._release(guest)
            crowd, reason = guest.crowd, _reason(error)
            self._complain(self._failed, EventName.TLS_HANDSHAKE_FAILED, crowd, reason)

    def _check_pace(self, origin: Origin) -> None:
        """Let one request of this source pass.

        Raises:
            RefusedError: It comes too fast; says when to come back, on a new connection: what may
                stand in line behind it on this one would cost a refusal each.
        """
        crowd = crowd_of(origin)
        wait_s = self._asking.wait_s(crowd, self._loop.time())
        if wait_s <= 0:
            return
        self._complain(self._throttled, EventName.AUTH_THROTTLED, crowd, "requests too fast")
        refusal = refusal_of(
            ThrottledError(
                "too many requests from this address",
                hint=f"at most {self.limits.requests_per_s:g} a second in the long run",
                retry_after_ms=math.ceil(wait_s * 1000),
            )
        )
        refusal.close = True
        raise refusal

    def _release(self, guest: "_Guest") -> None:
        self._leaving.discard(guest)
        self._crowds.leave(guest.crowd, guest)
        if not self._crowds.count:
            self._empty.set()

    def _complain(self, complaints: Complaints, event: EventName, source: str, reason: str) -> None:
        due = complaints.note(source, self._loop.time())
        if due is not None:
            log(event, listener=self.name, source=due.source, reason=reason, count=due.times)


class _Guest:
    """One connection of a door, its handshake included."""

    def __init__(self, crowd: str) -> None:
        self.crowd = crowd
        self.connection: Connection | None = None
        self.arrival: asyncio.Task[None] | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether its handshake is under way."""
        return self.connection is None or not self.connection.is_made

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is being answered."""
        return self.connection is not None and self.connection.is_idle

    def dismiss(self) -> None:
        """End the connection now."""
        if self.connection is not None and self.connection.is_made:
            self.connection.cut()
        elif self.arrival is not None:
            self.arrival.cancel()


def _tune(peer: socket) -> None:
    peer.settimeout(0)
    if peer.family != AF_UNIX:
        peer.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        peer.setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, SEND_STALL_MS)


def _reason(error: Exception) -> str:
    """Return OpenSSL's own constant for what failed; nothing a stranger can write into."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "tls").lower()
    return type(error).__name__
