"""The broker's port for renewal workers on other machines: CURVE, and ZAP in the broker's own loop.

It stands apart from the local sockets: a context and an I/O thread of its own, drained last, and
whatever keeps it shut (a taken port, a damaged key) keeps nobody on this machine from being served.
Strangers can open connections; too many of them close this port for a while and not the broker.
"""

import contextlib
import ipaddress
from collections.abc import Container, Iterator
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from broker.clock import boottime_ms
from broker.core.remote import RemotePort
from broker.core.zap import (
    DOMAIN,
    ZAPMalformedError,
    ZAPRequest,
    answer,
    later,
    read_request,
    refuse_malformed,
)
from broker.errors import MeshError, SettingsError, UnavailableError
from broker.runtime.curve import server_pair
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.runtime.sockets import bind_tcp, monitor, remote_router, zap_router
from broker.shell.batch import Batch
from broker.shell.desk import Incoming
from broker.shell.peers import split_address
from broker.shell.remote import end_ungranted
from broker.shell.state import BrokerState
from broker.units import Millis

PlainSocket = zmq.Socket[bytes]
OPEN_EVERY_MS = 1_000
CROWDED_MS = 5_000
"""How long the port stays shut after a crowd: longer than a handshake may take."""
QUESTIONS_MAX = 32
STRANGER_EVERY_MS = 10_000
CONNECTIONS_MAX = 512
"""Open connections, proved or not; libzmq ends the process when descriptors run out."""
NEWS_MAX = 1_000
ANYWHERE = "0.0.0.0"  # noqa: S104 (what an empty host means, as for the other listeners)
USER_ID = "User-Id"
_COMES = zmq.Event.ACCEPTED
_GOES = zmq.Event.DISCONNECTED


@contextlib.contextmanager
def remote_listener(state: BrokerState) -> Iterator["RemoteListener | None"]:
    """Yield the listener of `[listen] workers`, None when the setting is empty; close it after."""
    if not state.settings.listen.workers:
        yield None
        return
    listener = RemoteListener(state)
    try:
        yield listener
    finally:
        listener.close()


class RemoteListener:
    """Owns the sockets of one port; opened at the next tick, again and again until it is open."""

    def __init__(self, state: BrokerState) -> None:
        self._state = state
        self._context: zmq.Context[PlainSocket] = zmq.Context()
        self._zap = zap_router(self._context)
        self._door: PlainSocket | None = None
        self._news: PlainSocket | None = None
        self._open_at = Millis(0)
        self._look_at = Millis(0)
        self._connections = 0

    @property
    def sockets(self) -> tuple[PlainSocket, ...]:
        """What wakes the loop now; ask again before every wait."""
        return tuple(one for one in (self._zap, self._news, self._door) if one is not None)

    @property
    def port(self) -> RemotePort:
        """What the rest of the broker knows of this port."""
        return self._state.remote_port

    def tick(self, batch: Batch, now_ms: Millis) -> None:
        """Open the port if it is time, and let go of workers whose grant is over."""
        if self._door is None and now_ms >= self._open_at:
            self._open_at = Millis(now_ms + OPEN_EVERY_MS)
            self._try_to_open()
        if now_ms >= self._look_at:
            self._look_at = Millis(now_ms + OPEN_EVERY_MS)
            end_ungranted(self._state, batch)

    def answer_questions(self, ready: Container[object]) -> None:
        """Answer those who want to come in, as many as one drain has time for."""
        self._count_connections()
        if self._zap not in ready:
            return
        for _ in range(QUESTIONS_MAX):
            try:
                envelope, _, *frames = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            except ValueError:
                continue  # not even an envelope: nobody can be answered
            with contextlib.suppress(zmq.ZMQError):  # who asked has gone meanwhile
                self._zap.send_multipart([envelope, b"", *self._verdict(frames)], zmq.NOBLOCK)

    def receive(self, ready: Container[object]) -> Incoming | None:
        """Return the next message and the key that its connection proved, None when none waits."""
        door = self._door
        while door is not None and door in ready:
            try:
                route, *frames = door.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            try:
                key: Any = (frames[-1] if frames else route).get(USER_ID)
            except zmq.ZMQError:
                continue  # no key behind it: it came in past ZAP, which must not be possible
            return Incoming(door, route.bytes, [frame.bytes for frame in frames], str(key))
        return None

    def close(self) -> None:
        """Close the port."""
        self._shut()
        self._zap.close(linger=0)
        self._context.term()

    def _try_to_open(self) -> None:
        known = self.port.trouble
        try:
            self._open()
        except MeshError as error:
            self.port.trouble = f"{error.detail}: {error.hint}"
            if self.port.trouble != known:
                log(EventName.LISTENER_DELAYED, reason=error.detail, hint=error.hint)
        else:
            self.port.trouble = ""
            log(EventName.LISTENER_OPENED, listener="workers", address=self.port.listen)

    def _open(self) -> None:
        host, port = _literal(self._state.settings.listen.workers)
        pair = server_pair(self._state.paths)
        door = remote_router(self._context, pair, DOMAIN)
        news = monitor(self._context, door, _COMES | _GOES)
        try:
            bound = bind_tcp(door, host, port)
        except zmq.ZMQError as error:
            _close(door, news)
            raise UnavailableError(
                f"cannot listen on {self._state.settings.listen.workers}: {error.strerror}",
                hint="see who holds that port, or change workers under [listen]",
            ) from None
        self._door, self._news, self._connections = door, news, 0
        self.port.listen = f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}"
        self.port.port, self.port.server_key = bound, pair.public

    def _shut(self) -> None:
        if self._door is not None and self._news is not None:
            _close(self._door, self._news)
        self._door = self._news = None
        self.port.listen, self.port.port = "", 0

    def _count_connections(self) -> None:
        news = self._news
        if news is None:
            return
        for _ in range(NEWS_MAX):
            try:
                event = parse_monitor_message(news.recv_multipart(zmq.NOBLOCK))["event"]
            except zmq.Again:
                break
            self._connections += 1 if event == _COMES else -1
        if self._connections > CONNECTIONS_MAX:
            self._shut()
            self._open_at = Millis(boottime_ms() + CROWDED_MS)
            self.port.trouble = f"more than {CONNECTIONS_MAX} connections at once"
            hint = "see who connects to it, and let a firewall keep strangers out"
            log(EventName.LISTENER_DELAYED, reason=self.port.trouble, hint=hint)

    def _verdict(self, frames: list[bytes]) -> list[bytes]:
        try:
            request = read_request(frames)
        except ZAPMalformedError as problem:
            return refuse_malformed(problem)
        try:
            grant = self._state.grant_of(request.public_key)
        except MeshError:
            return later(request)
        if grant is None:
            self._note_stranger(request)
        return answer(request, granted=grant is not None)

    def _note_stranger(self, request: ZAPRequest) -> None:
        """Say that somebody knocked, once in a while: keys cost a stranger nothing."""
        if self._state.refusals.passes(("remote door",), boottime_ms(), STRANGER_EVERY_MS):
            key = request.public_key[:16]
            log(EventName.WORKER_REFUSED, address=request.address, key=key, reason="no grant")


def _close(door: PlainSocket, news: PlainSocket) -> None:
    door.disable_monitor()
    news.close(linger=0)
    door.close()


def _literal(setting: str) -> tuple[str, int]:
    """Return address and port of `[listen] workers`; a name could keep the loop waiting."""
    host, port = split_address(setting)
    host = ANYWHERE if host in {"", "*"} else host
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise SettingsError(
            f"listen.workers = {setting!r} names no address of this machine",
            hint='write an address and a port, such as "0.0.0.0:7645"',
        ) from None
    return host, port
