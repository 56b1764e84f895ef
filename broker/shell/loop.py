"""The broker's loop: drain, decide, commit once, reply, publish.

Control is drained before ordinary requests, so that a storm of renewals cannot delay a sign of
life; what comes from other machines is drained last. A drain is bounded by count and by time; what
is left waits in the sockets.
"""

from collections.abc import Container
from typing import Any

import zmq

from broker.clock import boottime_ms, wall_s
from broker.errors import OversizedMessageError, StorageError
from broker.runtime.stop import StopSignal
from broker.shell.attempts import flush_attempts
from broker.shell.batch import Batch
from broker.shell.desk import Desk, Incoming, Outgoing
from broker.shell.listener import RemoteListener
from broker.shell.localdoors import LocalDoors
from broker.shell.ticks import Ticks, flush_presence
from broker.units import Millis
from broker.wire.codec import MESSAGE_BYTES_MAX, encode, fault_of
from broker.wire.messages import Answer, AnyEvent

DRAIN_MAX = 64
DRAIN_MS_MAX = 10
REMOTE_DRAIN_MAX = 32
REMOTE_DRAIN_MS_MAX = 5
"""A flood from another machine costs the processes of this one no more than that per drain."""
PEER_ADDRESS = "Peer-Address"
NOBODY = "nobody"
"""No kernel vouches for this peer: it came over no socket file."""
TICK_MS = 200
"""Longest wait: how late a silent worker or an ended lease may be noticed."""


class Loop:
    """Owns nothing; moves frames between sockets and the desk until told to stop."""

    def __init__(  # noqa: PLR0913 (what one loop moves frames between)
        self,
        desk: Desk,
        *,
        control: "zmq.Socket[bytes]",
        requests: "zmq.Socket[bytes]",
        events: "zmq.Socket[bytes]",
        remote: RemoteListener | None = None,
        doors: LocalDoors | None = None,
    ) -> None:
        self._desk = desk
        self._doors = doors
        self._sockets = (control, requests)
        self._events = events
        self._remote = remote
        self._watched: tuple[zmq.Socket[bytes], ...] = ()
        self._ticks = Ticks(desk.state)
        self._next_tick_ms = boottime_ms()
        self.busy_ms_max = 0

    def run(self, stop: StopSignal) -> None:
        """Serve until the stop signal; finish the current drain and flush what is pending."""
        poller = zmq.Poller()
        for socket in self._sockets:
            poller.register(socket, zmq.POLLIN)
        poller.register(self._desk.state.offloop.descriptor, zmq.POLLIN)
        poller.register(stop.fileno(), zmq.POLLIN)
        for socket in self._doors.sockets if self._doors is not None else ():
            poller.register(socket, zmq.POLLIN)
        while True:
            self._watch_remote(poller)
            ready = {item for item, _ in poller.poll(self._patience_ms())}
            if self._doors is not None:
                self._doors.watch(ready)
            if stop.fileno() in ready and stop.requested():
                break
            self.turn(ready)
        self._drain_and_leave()

    def turn(self, ready: Container[object]) -> None:
        """Do one drain of what is ready: sockets, completions, and the tick when it is time."""
        started_ms = boottime_ms()
        batch = self._desk.open_batch()
        outgoing: list[Outgoing] = []
        try:
            if self._desk.state.offloop.descriptor in ready:
                self._complete_offloop(batch)
            if started_ms >= self._next_tick_ms:
                self._next_tick_ms = Millis(boottime_ms() + TICK_MS)
                self._ticks.run(batch, started_ms, wall_s())
                if self._remote is not None:
                    self._remote.tick(batch, started_ms)
            for socket in self._sockets:
                if socket in ready:
                    self._drain(socket, batch, outgoing)
            if self._remote is not None:
                self._drain_remote(self._remote, ready, batch, outgoing)
            events = self._desk.finish(batch, outgoing)
        except StorageError as failure:
            self._desk.void(batch, outgoing, failure)
            events = []
        self._send(outgoing)
        self._publish(events)
        self.busy_ms_max = max(self.busy_ms_max, boottime_ms() - started_ms)

    def _watch_remote(self, poller: zmq.Poller) -> None:
        """Wait for the sockets of the remote port that are open now."""
        wanted = self._remote.sockets if self._remote is not None else ()
        if wanted == self._watched:
            return
        for socket in self._watched:
            poller.unregister(socket)
        for socket in wanted:
            poller.register(socket, zmq.POLLIN)
        self._watched = wanted

    def _patience_ms(self) -> int:
        return max(0, self._next_tick_ms - boottime_ms())

    def _drain(self, socket: "zmq.Socket[bytes]", batch: Batch, outgoing: list[Outgoing]) -> None:
        until_ms = boottime_ms() + DRAIN_MS_MAX
        for _ in range(DRAIN_MAX):
            incoming = _receive(socket)
            if incoming is None:
                return
            self._decide(batch, incoming, outgoing)
            if boottime_ms() > until_ms:
                return

    def _drain_remote(
        self,
        remote: RemoteListener,
        ready: Container[object],
        batch: Batch,
        outgoing: list[Outgoing],
    ) -> None:
        remote.answer_questions(ready)
        until_ms = boottime_ms() + REMOTE_DRAIN_MS_MAX
        for _ in range(REMOTE_DRAIN_MAX):
            incoming = remote.receive(ready)
            if incoming is None:
                return
            self._decide(batch, incoming, outgoing)
            if boottime_ms() > until_ms:
                return

    def _decide(self, batch: Batch, incoming: Incoming, outgoing: list[Outgoing]) -> None:
        try:
            entry = self._desk.decide(batch, incoming)
        except StorageError as failure:
            # The ledger already rolled everything back: this message and its drain are void.
            self._desk.refuse(incoming, outgoing, failure)
            raise
        if entry is not None:
            outgoing.append(entry)

    def _complete_offloop(self, batch: Batch) -> None:
        offloop = self._desk.state.offloop
        waiting = offloop.finished()
        while waiting:
            then, outcome = waiting.pop(0)
            try:
                then(batch, outcome)
            except StorageError:
                offloop.put_back(waiting)
                raise

    def _send(self, outgoing: list[Outgoing]) -> None:
        for entry in outgoing:
            frames = _answer_frames(entry)
            try:
                entry.caller.socket.send_multipart([entry.caller.route, *frames], zmq.NOBLOCK)
            except zmq.ZMQError:
                # The peer is gone or does not read: its retry finds the remembered reply.
                continue

    def _publish(self, events: list[AnyEvent]) -> None:
        for event in events:
            topic = event.__struct_config__.tag
            assert isinstance(topic, str)
            self._events.send_multipart([topic.encode(), *encode(event)], zmq.NOBLOCK)

    def _drain_and_leave(self) -> None:
        self.turn(self._sockets)
        batch = self._desk.open_batch()
        try:
            flush_presence(self._desk.state, batch)
            flush_attempts(self._desk.state, batch, wall_s())
        except StorageError as failure:
            self._desk.void(batch, [], failure)
        else:
            self._desk.finish(batch, [])


def _receive(socket: "zmq.Socket[bytes]") -> Incoming | None:
    """Return the next message and whose process it is from, None when none waits."""
    try:
        route = socket.recv(zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return None
    frames = socket.recv_multipart(zmq.NOBLOCK) if route.more else []
    try:
        address: Any = route.get(PEER_ADDRESS)
    except zmq.ZMQError:
        address = NOBODY
    return Incoming(socket, route.bytes, frames, address=str(address))


def _answer_frames(entry: Outgoing) -> list[bytes]:
    frames = encode(Answer(entry.caller.request_id, entry.reply))
    if len(frames[1]) <= MESSAGE_BYTES_MAX:
        return frames
    # The caller would drop it unseen and ask again for ever; a refusal says what to do.
    refusal = OversizedMessageError(f"the answer has {len(frames[1])} bytes", hint="ask for less")
    return encode(Answer(entry.caller.request_id, fault_of(refusal)))
