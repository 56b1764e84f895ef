"""A fake broker with the real interface: the same three sockets, answers from a table.

`StubBroker(paths, {GetNode: lambda call: NodeView(...)})` answers from the table, with `Ack` for
liveness, and records what it got. A callable may raise a `MeshError` (it becomes a `Fault`) or
return None (no answer). Unknown identities must send READY first, as with the real one.
"""

import queue
import secrets
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import zmq

from broker.errors import ErrorCode, MeshError
from broker.runtime.paths import Paths
from broker.runtime.sockets import control_router, publisher, request_router
from broker.wire.base import Reply, Request
from broker.wire.codec import decode_call, encode, fault_of
from broker.wire.control import Ack, Fault
from broker.wire.liveness import Beat, BeatAnswer, Goodbye, Ready, Welcome
from broker.wire.messages import Answer, AnyEvent, Call
from broker.wire.node import GetNode, NodeView
from broker.wire.supervision import OverdueView, ReportProcesses
from tests.support import eventually

Respond = Callable[[Any], Reply | None]
Q = TypeVar("Q", bound=Request)


def idle_node(host: str = "stub", **changes: Any) -> NodeView:
    """Return a node without a mesh; `changes` replace fields."""
    fields: dict[str, Any] = {
        "host": host,
        "role": "none",
        "ca": "absent",
        "term": 0,
        "sequence": 0,
        "bundle_sequence": 0,
        "mesh": None,
    }
    return NodeView(**{**fields, **changes})


class StubBroker:
    """Runs in a thread from `start` to `stop`; a context manager does both."""

    def __init__(
        self,
        paths: Paths,
        answers: Mapping[type[Request], Respond] | None = None,
        *,
        beat_every_ms: int = 100,
    ) -> None:
        self.paths = paths
        self.answers: dict[type[Request], Respond] = dict(answers or {})
        self.calls: list[Call] = []
        self.identities: list[bytes] = []
        self.lanes: list[str] = []
        self.silent = False
        self.boot_id = ""
        self._beat_every_ms = beat_every_ms
        self._known: dict[bytes, Ready] = {}
        self._outbox: queue.Queue[list[bytes]] = queue.Queue()
        self._late: queue.Queue[tuple[str, list[bytes]]] = queue.Queue()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._bound = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Bind the sockets with a new boot id, knowing nobody."""
        self.boot_id = secrets.token_hex(8)
        self._known.clear()
        self._stopping.clear()
        self._bound.clear()
        self._thread = threading.Thread(target=self._serve, name="stub-broker", daemon=True)
        self._thread.start()
        assert self._bound.wait(5), "the stub broker could not bind"

    def stop(self) -> None:
        """Close the sockets; callers see a broker that is gone."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5)
            assert not self._thread.is_alive(), "the stub broker hangs"
            self._thread = None

    def restart(self) -> None:
        """Come back with another boot id, having forgotten who was registered."""
        self.stop()
        self.start()

    def forget(self) -> None:
        """Forget who was registered, without a new boot id."""
        self._known.clear()

    def publish(self, event: AnyEvent) -> None:
        """Send an event to all subscribers; nobody may be listening yet."""
        tag = str(type(event).__struct_config__.tag)
        self._outbox.put([tag.encode(), *encode(event)])

    def publish_raw(self, frames: list[bytes]) -> None:
        """Send arbitrary frames to the subscribers."""
        self._outbox.put(frames)

    def answer_later(self, call: Call, reply: Reply) -> None:
        """Answer a call that was left without an answer."""
        place = self.calls.index(call)
        answer = Answer(request_id=call.request_id, reply=reply)  # type: ignore[arg-type]  # any reply
        self._late.put((self.lanes[place], [self.identities[place], *encode(answer)]))

    def publish_until(self, event: AnyEvent, probe: Callable[[], object]) -> None:
        """Publish `event` again and again until `probe` holds: subscribing takes a moment."""

        def again() -> bool:
            if not probe():
                self.publish(event)
            return bool(probe())

        eventually(again)

    def seen(self, kind: type[Q]) -> list[Q]:
        """Return the requests of one kind in order of arrival, repeats included."""
        return [call.request for call in list(self.calls) if isinstance(call.request, kind)]

    @property
    def registered(self) -> list[Ready]:
        """Who is registered now."""
        return list(self._known.values())

    def _serve(self) -> None:
        with zmq.Context() as context:
            control = control_router(context, self.paths.control_socket)
            ordinary = request_router(context, self.paths.requests_socket)
            events = publisher(context, self.paths.events_socket)
            self._bound.set()
            with control, ordinary, events:
                while not self._stopping.is_set():
                    self._turn(control, ordinary, events)

    def _turn(
        self,
        control: "zmq.Socket[bytes]",
        ordinary: "zmq.Socket[bytes]",
        events: "zmq.Socket[bytes]",
    ) -> None:
        while not self._outbox.empty():
            events.send_multipart(self._outbox.get())
        while not self._late.empty():
            lane, frames = self._late.get()
            (control if lane == "control" else ordinary).send_multipart(frames)
        zmq.zmq_poll([(control, zmq.POLLIN), (ordinary, zmq.POLLIN)], 5)
        for lane, socket in (("control", control), ("requests", ordinary)):
            while socket.poll(0):
                self._serve_one(lane, socket)

    def _serve_one(self, lane: str, socket: "zmq.Socket[bytes]") -> None:
        identity, *frames = socket.recv_multipart()
        if self.silent:
            return
        try:
            call = decode_call(frames)
        except MeshError:
            return
        self.identities.append(identity)
        self.lanes.append(lane)
        self.calls.append(call)  # last: whoever sees the call also finds where it came from
        reply = self._reply(identity, call.request)
        if reply is None:
            return
        answer = Answer(request_id=call.request_id, reply=reply)  # type: ignore[arg-type]  # any reply
        try:
            socket.send_multipart([identity, *encode(answer)], zmq.NOBLOCK)
        except zmq.ZMQError:
            return  # the caller has gone away meanwhile

    def _reply(self, identity: bytes, request: Request) -> Reply | None:
        if identity not in self._known and not isinstance(request, Ready | Beat):
            return Fault(code=ErrorCode.UNREGISTERED.value, detail="send READY first")
        respond = self.answers.get(type(request))
        try:
            reply = respond(request) if respond else self._usual(identity, request)
        except MeshError as error:
            return fault_of(error)
        if isinstance(request, Ready) and isinstance(reply, Welcome):
            self._known[identity] = request
        return reply

    def _usual(self, identity: bytes, request: Request) -> Reply:
        match request:
            case Ready():
                return Welcome(
                    broker_boot_id=self.boot_id, beat_every_ms=self._beat_every_ms, node="stub"
                )
            case Beat():
                return BeatAnswer(broker_boot_id=self.boot_id, registered=identity in self._known)
            case Goodbye():
                self._known.pop(identity, None)
                return Ack()
            case GetNode():
                return idle_node()
            case ReportProcesses():
                return OverdueView(overdue=())
            case _:
                return Fault(
                    code=ErrorCode.UNKNOWN_KIND.value,
                    detail=f"the stub has no answer to {type(request).__name__}",
                )
