"""What both links agree on: lanes, identity, READY, and how an answer becomes a value or an error.

Invariant: a request keeps its id however often it is sent, so that the broker can answer a repeat
from memory. Source: ZeroMQ guide, Lazy Pirate.
"""

import os
from dataclasses import dataclass
from typing import TypeVar

from broker.errors import (
    ErrorCode,
    InternalError,
    MeshError,
    OversizedMessageError,
    UnavailableError,
    error_classes,
)
from broker.wire.base import Reply, Request
from broker.wire.codec import MESSAGE_BYTES_MAX, WIRE_VERSION, encode
from broker.wire.control import Fault
from broker.wire.ids import Service
from broker.wire.liveness import Beat, Goodbye, Ready
from broker.wire.messages import Call
from broker.wire.node import GetNode
from broker.wire.roster import RecordHeartbeat
from broker.wire.supervision import ReportProcesses

URGENT: tuple[type[Request], ...] = (
    Ready,
    Beat,
    Goodbye,
    GetNode,
    RecordHeartbeat,
    ReportProcesses,
)
"""Sent on the control lane, which the broker drains first."""

ASK_MS = 5000
REPEAT_MS = 1000
"""A request without an answer is sent again after this long: the broker may have been killed."""

PROMISED_BEATS = 5
PROMISE_MS_MIN = 1000
START_HINT = "start it with `certmesh up`"

R = TypeVar("R", bound=Reply)


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who is calling: one process lifetime of one instance of one service."""

    service: Service
    instance: str
    boot_id: str
    identity: bytes

    def ready(self) -> Ready:
        """Return the READY of this process."""
        return Ready(
            service=self.service,
            instance=self.instance,
            boot_id=self.boot_id,
            pid=os.getpid(),
            wire=WIRE_VERSION,
        )


def introduce(service: Service, instance: str) -> Introduction:
    """Return a fresh introduction; its identity is unique among all links that ever were."""
    name = f"{service.value}/{instance}/{os.getpid()}/{os.urandom(4).hex()}"
    return Introduction(service, instance, os.urandom(8).hex(), name.encode())


def new_request_id() -> bytes:
    """Return 16 random octets."""
    return os.urandom(16)


def frames_of(request_id: bytes, request: Request, ttl_ms: int) -> list[bytes]:
    """Return the frames of a call.

    Raises:
        OversizedMessageError: The broker would refuse it; it is not sent.
    """
    frames = encode(Call(request_id=request_id, ttl_ms=ttl_ms, request=request))  # type: ignore[arg-type]  # the union of all requests
    if len(frames[1]) > MESSAGE_BYTES_MAX:
        raise OversizedMessageError(f"the request has {len(frames[1])} bytes")
    return frames


def result_of(reply: Reply, kind: type[R]) -> R:
    """Return `reply` as `kind`.

    Raises:
        MeshError: The reply is a fault; the class is the one of its code.
        InternalError: A reply of another kind, or a code this side does not know.
    """
    if isinstance(reply, Fault):
        raise error_of(reply)
    if not isinstance(reply, kind):
        raise InternalError(f"expected {kind.__name__}, got {type(reply).__name__}")
    return reply


def error_of(fault: Fault) -> MeshError:
    """Return the error a fault stands for."""
    try:
        kind = error_classes()[ErrorCode(fault.code)]
    except (ValueError, KeyError):
        kind = InternalError
    return kind(fault.detail, hint=fault.hint, retry_after_ms=fault.retry_after_ms)


def promise_ms(beat_every_ms: int) -> int:
    """Return what a beat promises without a reason for more: a few lost beats are no alarm."""
    return max(PROMISED_BEATS * beat_every_ms, PROMISE_MS_MIN)


def is_unregistered(reply: object) -> bool:
    """Return whether the broker asks for READY."""
    return isinstance(reply, Fault) and reply.code == ErrorCode.UNREGISTERED


def away(timeout_ms: int) -> UnavailableError:
    """Return the error of a call that never reached a broker."""
    return UnavailableError(f"no broker answered within {timeout_ms} ms", hint=START_HINT)
