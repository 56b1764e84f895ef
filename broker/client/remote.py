"""The way to a broker on another machine: one CURVE connection over TCP for both lanes.

Invariants: only the broker whose key was told over mutual TLS is believed; one address at a time;
a name is never resolved. Source: ZeroMQ RFC 26/CurveZMQ.

Order rules:

1. libzmq gives up for ever after the broker refused the key: a new socket asks again, once a
   second at most, because a grant may come.
2. Each new socket has a new routing identity. The broker may hold the old connection for a while,
   and would not listen to a second one of the same name.
3. Who is connected and hears nothing for `SILENT_MS` in spite of asking takes a new socket.
"""

import ipaddress
from dataclasses import dataclass

import zmq
from typing_extensions import override
from zmq.utils.monitor import parse_monitor_message

from broker.client.lane import Lane, PlainContext
from broker.clock import boottime_ms
from broker.errors import ForbiddenError, UnavailableError
from broker.runtime.curve import CurvePair
from broker.runtime.sockets import REMOTE_HANDSHAKE_MS, connect_tcp, monitor, remote_dealer
from broker.units import Millis

AGAIN_MS = 1_000
SILENT_MS = 10_000
NEWS_MAX = 100
_REFUSED = zmq.Event.HANDSHAKE_FAILED_AUTH
_BROKEN = zmq.Event.HANDSHAKE_FAILED_NO_DETAIL | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
_PROVED = zmq.Event.HANDSHAKE_SUCCEEDED
_EVENTS = _REFUSED | _BROKEN | _PROVED


@dataclass(frozen=True, slots=True)
class RemoteDoor:
    """Where a broker on another machine listens for renewal workers; give it to a `Link`.

    Args:
        addresses: Literal addresses, the best first; what is no address is left out.
        port: The port of `[listen] workers` there.
        server_key: The key that broker proves itself by, as 64 hexadecimal digits.
        pair: The key of this machine's workers.

    Raises:
        UnavailableError: No literal address is left.
    """

    addresses: tuple[str, ...]
    port: int
    server_key: str
    pair: CurvePair

    def __post_init__(self) -> None:
        if not self.literal:
            raise UnavailableError(
                "the CA names no address for its renewal workers",
                hint="set addresses under [node] on the CA",
            )

    @property
    def literal(self) -> tuple[str, ...]:
        """The addresses that need no resolving."""
        return tuple(address for address in self.addresses if _is_literal(address))

    def lanes(self, context: PlainContext, identity: bytes) -> tuple[Lane, Lane]:
        """Return one lane, twice."""
        lane = RemoteLane(context, self, identity)
        return lane, lane


class RemoteLane(Lane):
    """One CURVE connection, made anew when that is the only way on."""

    def __init__(self, context: PlainContext, door: RemoteDoor, identity: bytes) -> None:
        self._context = context
        self._door = door
        self._identity = identity
        self._sockets = 0
        self._place = 0
        self._broken = False
        self._refused_ms: Millis | None = None
        self._asked_ms: Millis | None = None
        self._absent_ms = boottime_ms()
        super().__init__(self._new_socket())

    @override
    def look(self) -> bool:
        """Return whether a broker is connected now; takes another socket where that helps."""
        now_ms = boottime_ms()
        self._hear_news(now_ms)
        writable = super().look()
        if writable:
            self._absent_ms = now_ms
        if self._is_lost(now_ms, writable=writable):
            self._reopen(now_ms)
            return super().look()
        return writable

    @override
    def send(self, frames: list[bytes]) -> bool:
        """Return whether `frames` are on their way."""
        sent = super().send(frames)
        if sent and self._asked_ms is None:
            self._asked_ms = boottime_ms()
        return sent

    @override
    def receive(self) -> list[bytes] | None:
        """Return the frames of one answer, None when there is none."""
        frames = super().receive()
        if frames is not None:
            self._asked_ms = None
        return frames

    @override
    def absence(self, timeout_ms: int) -> UnavailableError:
        """Return the error of a call that never reached the broker."""
        if self._broken:
            return UnavailableError(
                f"the broker at {self._where()} did not complete the CURVE handshake",
                hint="it may have another key by now; this machine asks for it again",
            )
        return UnavailableError(
            f"no broker answered at {self._where()} within {timeout_ms} ms",
            hint="see on the CA that it runs, that [listen] workers is set, and the firewall",
        )

    @override
    def close(self) -> None:
        """Close the connection; what was not sent yet is dropped. A second time does nothing."""
        if self.socket.closed:
            return
        self.socket.disable_monitor()
        self._news.close(linger=0)
        self.socket.close(linger=0)

    def _is_lost(self, now_ms: Millis, *, writable: bool) -> bool:
        if self._refused_ms is not None:
            return now_ms - self._refused_ms >= AGAIN_MS
        if writable:
            return self._asked_ms is not None and now_ms - self._asked_ms >= SILENT_MS
        several = len(self._door.literal) > 1
        return several and now_ms - self._absent_ms >= REMOTE_HANDSHAKE_MS

    def _reopen(self, now_ms: Millis) -> None:
        self.close()
        self._place += 1
        self._refused_ms = self._asked_ms = self.trouble = None
        self._absent_ms, self.connected = now_ms, False
        self.socket = self._new_socket()

    def _new_socket(self) -> "zmq.Socket[bytes]":
        suffix = f"/{self._sockets}".encode() if self._sockets else b""
        self._sockets += 1
        door = self._door
        socket = remote_dealer(self._context, door.pair, door.server_key, self._identity + suffix)
        self._news = monitor(self._context, socket, _EVENTS)
        connect_tcp(socket, self._address(), door.port)
        return socket

    def _hear_news(self, now_ms: Millis) -> None:
        for _ in range(NEWS_MAX):
            try:
                event = parse_monitor_message(self._news.recv_multipart(zmq.NOBLOCK))["event"]
            except zmq.Again:
                return
            if event == _REFUSED:
                self._refused_ms = now_ms
                self.trouble = ForbiddenError(
                    f"the broker at {self._where()} does not know the key of this machine's "
                    "renewal workers",
                    hint="on the CA: certmesh worker enroll HOST",
                )
            self._broken = event != _PROVED

    def _address(self) -> str:
        literal = self._door.literal
        return literal[self._place % len(literal)]

    def _where(self) -> str:
        address = self._address()
        return (
            f"[{address}]:{self._door.port}" if ":" in address else f"{address}:{self._door.port}"
        )


def _is_literal(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
