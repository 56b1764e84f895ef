"""The non-blocking core of both links: two lanes, READY, repeats.

Order rules:

1. READY goes out on the control lane before anything else, again after every reconnect, after an
   `unregistered` refusal, and when the broker's boot id changes.
2. A call is sent once the broker has answered READY, again after `REPEAT_MS` of silence, and at
   once on a new connection (the sockets only count as writable while connected) or after another
   answer to READY.
3. Whatever arrives on a lane proves that the broker lives.
4. An answer that this release cannot read is a refusal of its request: the caller hears why at
   once and does not wait for an answer that it has already got.
"""

from dataclasses import dataclass

from broker.client.lane import Door, Lane, PlainContext
from broker.client.protocol import (
    REPEAT_MS,
    URGENT,
    Introduction,
    error_of,
    frames_of,
    introduce,
    is_unregistered,
    new_request_id,
)
from broker.clock import boottime_ms
from broker.errors import MeshError, UnsupportedVersionError
from broker.units import Millis
from broker.wire.base import Request
from broker.wire.codec import decode_answer, fault_of, request_id_of
from broker.wire.control import Fault
from broker.wire.ids import Service
from broker.wire.liveness import Beat, BeatAnswer, Goodbye, Welcome
from broker.wire.messages import Answer

COLLECTED_MAX = 1000
"""Answers taken in one go, so that a flood cannot hold the caller."""

KNOCK_TTL_MS = 5000

OUTDATED_MS = 3_000
"""Refused for its version for so long, a process leaves: longer than supervisord's `startsecs`, so
that it is never FATAL for that, and short enough for an upgrade."""


@dataclass(slots=True)
class Pending:
    """A call without an answer; `sent_ms` None means it must go out as soon as possible."""

    request_id: bytes
    request: Request
    deadline_ms: Millis
    sent_ms: Millis | None = None
    connection: int = 0
    welcomes: int = 0
    was_sent: bool = False


class Exchange:
    """Sends, repeats, receives; keeps this process registered. Not for several threads."""

    def __init__(self, context: PlainContext, door: Door, service: Service, instance: str) -> None:
        self.introduction: Introduction = introduce(service, instance)
        identity = self.introduction.identity
        self.control, self.ordinary = door.lanes(context, identity)
        self.welcome: Welcome | None = None
        self.welcomes = 0
        self.registered = False
        self.heard_ms: Millis | None = None
        self._refusal: MeshError | None = None
        self._knock: Pending | None = None
        self._outdated_ms: Millis | None = None

    @property
    def refusal(self) -> MeshError | None:
        """Why the broker does not take this process, as far as it said so."""
        return self._refusal or self.control.trouble

    def is_outdated(self, now_ms: Millis) -> bool:
        """Whether the broker has refused this process's wire version for `OUTDATED_MS`.

        It does not heal by waiting: one of the two is of another release than the one on disk.
        """
        return self._outdated_ms is not None and now_ms - self._outdated_ms >= OUTDATED_MS

    def close(self) -> None:
        """Close both sockets; what was not sent yet is dropped."""
        self.control.close()
        self.ordinary.close()

    def lane_of(self, request: Request) -> Lane:
        """Return the lane for this kind of request."""
        return self.control if isinstance(request, URGENT) else self.ordinary

    def pursue(self, call: Pending, now_ms: Millis) -> None:
        """Send `call` when it is its turn; knock first while the broker does not know us."""
        self.keep_registered(now_ms)
        if self.registered:
            self._send_when_due(call, now_ms)

    def keep_registered(self, now_ms: Millis) -> None:
        """Send READY if it is needed and not on its way already."""
        seen = self.control.connections
        if not self.control.look() or self.control.connections != seen:
            self.registered = False
        if self.registered:
            return
        if self._knock is None:
            deadline = Millis(now_ms + KNOCK_TTL_MS)
            self._knock = Pending(new_request_id(), self.introduction.ready(), deadline)
        self._knock.deadline_ms = Millis(now_ms + KNOCK_TTL_MS)
        if self._send_when_due(self._knock, now_ms):
            self._refusal = None

    def tell(self, request: Beat | Goodbye, ttl_ms: int) -> bool:
        """Send a liveness message whose answer nobody waits for; return whether it went out."""
        if not self.registered:
            return False
        return self.control.send(frames_of(new_request_id(), request, ttl_ms))

    def waits_for_connection(self, call: Pending) -> Lane | None:
        """Return the lane that must connect before anything can be sent, if that is the case."""
        if not self.control.connected:
            return self.control
        lane = self.lane_of(call.request)
        return None if lane.connected or not self.registered else lane

    def collect(self) -> list[Answer]:
        """Return the answers that are here, after learning from them; bad frames are dropped."""
        answers = []
        for lane in (self.control, self.ordinary):
            for _ in range(COLLECTED_MAX):
                frames = lane.receive()
                if frames is None:
                    break
                answers += _read(frames)
        for answer in answers:
            self._learn(answer)
        return answers

    def _send_when_due(self, call: Pending, now_ms: Millis) -> bool:
        lane = self.lane_of(call.request)
        lane.look()
        due = (
            call.sent_ms is None
            or now_ms - call.sent_ms >= REPEAT_MS
            or (call.connection, call.welcomes) != (lane.connections, self.welcomes)
        )
        ttl_ms = max(1, call.deadline_ms - now_ms)
        if not due or not lane.send(frames_of(call.request_id, call.request, ttl_ms)):
            return False
        call.sent_ms, call.was_sent = now_ms, True
        call.connection, call.welcomes = lane.connections, self.welcomes
        return True

    def _learn(self, answer: Answer) -> None:
        self.heard_ms = boottime_ms()
        reply = answer.reply
        knocked = self._knock is not None and answer.request_id == self._knock.request_id
        if isinstance(reply, Welcome) and knocked:
            self.welcome, self.registered = reply, True
            self.welcomes += 1
            self._refusal, self._knock, self._outdated_ms = None, None, None
        elif isinstance(reply, BeatAnswer):
            self._compare(reply)
        elif is_unregistered(reply):
            self.registered = False
        elif knocked and isinstance(reply, Fault):
            self._refusal = error_of(reply)
            if not isinstance(self._refusal, UnsupportedVersionError):
                self._outdated_ms = None
            elif self._outdated_ms is None:
                self._outdated_ms = self.heard_ms

    def _compare(self, reply: BeatAnswer) -> None:
        known = self.welcome is not None and self.welcome.broker_boot_id == reply.broker_boot_id
        if not (reply.registered and known):
            self.registered = False


def _read(frames: list[bytes]) -> list[Answer]:
    """Return the answer in `frames`, or the refusal it amounts to; nothing when it is nobody's."""
    try:
        return [decode_answer(frames)]
    except MeshError as error:
        request_id = request_id_of(frames)
        return [] if request_id is None else [Answer(request_id, fault_of(error))]
