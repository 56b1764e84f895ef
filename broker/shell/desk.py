"""One drain from frames to replies: decode, check, decide, commit once, answer.

Sockets stay outside: this takes frames and gives frames, so a test needs no transport.
"""

from dataclasses import dataclass, replace

import zmq

from broker.clock import boottime_ms, wall_s
from broker.core.operators import DECISIONS, require_operator
from broker.core.seats import Seats, seat_key
from broker.errors import (
    MeshError,
    StorageError,
    UnregisteredError,
    UnsupportedVersionError,
    error_classes,
)
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller, Deferred
from broker.shell.dispatch import ALWAYS_REMEMBERED, REMEMBERED, VERBS
from broker.shell.refused import note_refused
from broker.shell.remote import admit_remote, connection_of, refuse_incapable
from broker.shell.replication import answer_polls
from broker.shell.seating import seated
from broker.shell.state import BrokerState
from broker.wire.base import Request
from broker.wire.codec import (
    VERSION_FRAME,
    decode_answer,
    decode_call,
    encode,
    fault_of,
    request_id_of,
)
from broker.wire.control import Fault
from broker.wire.events import RosterMoved
from broker.wire.liveness import Beat, Goodbye, Ready
from broker.wire.messages import Answer, AnyEvent, AnyReply

REQUEST_ID_BYTES = 16
OUTDATED_EVERY_MS = 10_000
GARBAGE_EVERY_MS = 60_000
_PASSING = frozenset(code.value for code, kind in error_classes().items() if kind.retryable)


@dataclass(slots=True)
class Incoming:
    """Frames as they came: who, on which socket, what.

    `key` is the one a CURVE peer proved, `address` the process that the kernel says a local one is.
    """

    socket: "zmq.Socket[bytes]"
    identity: bytes
    frames: list[bytes]
    key: str = ""
    address: str = ""


@dataclass(slots=True)
class Outgoing:
    """A reply and whether it depends on this drain's commit."""

    caller: Caller
    reply: AnyReply
    wrote: bool


class Desk:
    """Turns drains into answers and events."""

    def __init__(self, state: BrokerState, seats: Seats | None = None) -> None:
        self.state = state
        self._seats = seats
        self.refused_frames = 0

    def open_batch(self) -> Batch:
        """Start a drain."""
        state = self.state
        return Batch(state.ledger, wall_s(), lambda: state.serves)

    def decide(self, batch: Batch, incoming: Incoming) -> Outgoing | None:
        """Decide one message; None when the reply comes later or nobody can be answered."""
        try:
            call = decode_call(incoming.frames)
        except MeshError as refusal:
            self.refused_frames += 1
            self._note_unread(incoming, refusal)
            request_id = request_id_of(incoming.frames)
            if request_id is None or len(request_id) != REQUEST_ID_BYTES:
                return None
            return Outgoing(self._caller(incoming, request_id, 0), fault_of(refusal), wrote=False)
        caller = self._caller(incoming, call.request_id, call.ttl_ms)
        before, told = batch.writes, len(batch.facts)
        try:
            reply = self._answer(batch, caller, call.request)
        except StorageError:
            raise
        except MeshError as refusal:
            # A stranger's words about itself are no audit row.
            if len(batch.facts) == told and (caller.grant is not None or not caller.key):
                note_refused(self.state, batch, caller, (call.request, refusal))
            reply = fault_of(refusal)
        if isinstance(reply, Deferred):
            return None
        if _is_remembered(type(call.request), reply, wrote=batch.writes > before):
            batch.remember(call.request_id, encode(Answer(call.request_id, reply))[1])
        # Whatever is decided once the group is open may rest on rows that are not durable yet.
        return Outgoing(caller, reply, wrote=batch.writes > 0)

    def finish(self, batch: Batch, outgoing: list[Outgoing]) -> list[AnyEvent]:
        """Commit, run the effects, and return the events; a failed commit refuses what wrote.

        After this every entry of `outgoing` may be sent.
        """
        try:
            batch.commit()
        except StorageError as failure:
            self.void(batch, outgoing, failure)
            return []
        if batch.facts:
            head = self.state.ledger.head
            batch.publish(RosterMoved(head.term, head.sequence))
            batch.after_commit.append(lambda: answer_polls(self.state, wall_s()))
        self._take_effect(batch)
        self._take_late(outgoing)
        return batch.events

    def _take_effect(self, batch: Batch) -> None:
        """Run the effects; what fails from here on takes back no row and no answer."""
        for effect in batch.after_commit:
            try:
                effect()
            except StorageError as failure:
                self._note(failure)

    def void(self, batch: Batch, outgoing: list[Outgoing], failure: StorageError) -> None:
        """Turn every reply that depended on the lost commit into a typed refusal."""
        batch.rollback()
        self._note(failure)
        self._take_late(outgoing)
        for entry in outgoing:
            if entry.wrote:
                entry.reply = fault_of(failure)

    def refuse(self, incoming: Incoming, outgoing: list[Outgoing], failure: StorageError) -> None:
        """Answer the message during which the ledger gave up."""
        request_id = request_id_of(incoming.frames)
        if request_id is not None:
            # No grant is looked up: this ledger has just failed, and nothing is decided here.
            caller = self._caller(replace(incoming, key=""), request_id, 0)
            outgoing.append(Outgoing(caller, fault_of(failure), wrote=True))

    def _note_outdated(self, incoming: Incoming, refusal: MeshError) -> None:
        """Keep for status and say once in a while that a process here is of another release."""
        state, now_ms = self.state, boottime_ms()
        state.workers.refuse_version(incoming.identity, now_ms)
        if state.refusals.passes(("wire version",), now_ms, OUTDATED_EVERY_MS):
            log(EventName.WORKER_REFUSED, reason=refusal.detail, hint=refusal.hint)

    def _note_unread(self, incoming: Incoming, refusal: MeshError) -> None:
        if isinstance(refusal, UnsupportedVersionError) and not incoming.key:
            self._note_outdated(incoming, refusal)
        else:
            self._note_garbage(incoming, refusal)

    def _note_garbage(self, incoming: Incoming, refusal: MeshError) -> None:
        """Say once in a while that something here sends what is no message, and how much so far.

        libzmq ends a connection whose bytes are no frames; it knows no way to end one by name.
        """
        if self.state.refusals.passes(("garbage",), boottime_ms(), GARBAGE_EVERY_MS):
            log(
                EventName.WORKER_REFUSED,
                address=incoming.address,
                reason=f"what it sends is no message: {refusal.detail}",
                count=self.refused_frames,
            )

    def _note(self, failure: StorageError) -> None:
        self.state.storage_failed_ms = boottime_ms()
        log(EventName.STORAGE_FAILED, detail=failure.detail)

    def _take_late(self, outgoing: list[Outgoing]) -> None:
        outgoing.extend(Outgoing(caller, reply, wrote=True) for caller, reply in self.state.late)
        self.state.late.clear()

    def _caller(self, incoming: Incoming, request_id: bytes, ttl_ms: int) -> Caller:
        grant, identity = None, incoming.identity
        if incoming.key:
            came = connection_of(self.state, incoming.key, incoming.identity)
            grant, identity = came.grant, came.identity
        elif incoming.address:
            identity = seat_key(incoming.identity, incoming.address)
        return Caller(
            identity=identity,
            socket=incoming.socket,
            service=self.state.workers.service_of(identity),
            request_id=request_id,
            ttl_ms=ttl_ms,
            now_ms=boottime_ms(),
            now=wall_s(),
            route=incoming.identity,
            key=incoming.key,
            grant=grant,
            address=incoming.address,
        )

    def _answer(self, batch: Batch, caller: Caller, request: Request) -> AnyReply | Deferred:
        kind = type(request)
        if caller.key:
            request = admit_remote(self.state, caller, request)
        elif isinstance(request, Ready):
            request = seated(self.state, batch, caller, request, self._seats)
        if caller.service is None and not isinstance(request, Ready | Beat | Goodbye):
            raise UnregisteredError("introduce yourself first", hint="send ready")
        refuse_incapable(self.state, caller, request)
        if kind in DECISIONS:
            mesh = self.state.mesh_row()
            require_operator(mesh.policy if mesh is not None else None, request)
        if kind is not Beat:
            self.state.workers.alive(caller.identity, caller.now_ms)
        if kind in REMEMBERED:
            earlier = self.state.ledger.remembered(caller.request_id)
            if earlier is not None:
                return decode_answer([VERSION_FRAME, earlier]).reply
        return VERBS[kind](self.state, batch, caller, request)


def _is_remembered(kind: type[Request], reply: AnyReply, *, wrote: bool) -> bool:
    """Return whether a retry of this request gets this very reply again.

    A refusal that passes had no effect but its audit row: the retry it asks for is a new question.
    """
    if kind in ALWAYS_REMEMBERED:
        return True
    passes = isinstance(reply, Fault) and (reply.retry_after_ms > 0 or reply.code in _PASSING)
    return wrote and kind in REMEMBERED and not passes
