"""The loop itself, over fake sockets with the real interface: no drain leaves a caller waiting."""

from pathlib import Path
from typing import Any, cast

import zmq

from broker.shell.loop import Loop
from broker.wire.base import Request
from broker.wire.codec import decode_answer, encode
from broker.wire.control import Fault
from broker.wire.enrollment import EnrollmentView, SetEnrollment
from broker.wire.ids import Service
from broker.wire.messages import Call
from broker.wire.node import GetNode, NodeView
from tests.shell.office import Office


class Pipe:
    """A ROUTER as the loop sees it: what waits, and what was sent."""

    def __init__(self) -> None:
        self.waiting: list[list[bytes]] = []
        self.sent: list[list[bytes]] = []

    def recv_multipart(self, _flags: int) -> list[bytes]:
        """Return the next message; raises `zmq.Again` when there is none."""
        if not self.waiting:
            raise zmq.Again
        return self.waiting.pop(0)

    def send_multipart(self, frames: list[bytes], _flags: int) -> None:
        """Keep what would have gone out."""
        self.sent.append(frames)

    def put(self, identity: bytes, number: int, request: Request) -> None:
        """Queue a call with a recognizable id."""
        call = Call(number.to_bytes(16), 5000, cast("Any", request))
        self.waiting.append([identity, *encode(call)])

    def answers(self) -> dict[int, object]:
        """Return the replies by the number of their call."""
        answers = [decode_answer(frames[1:]) for frames in self.sent]
        return {int.from_bytes(answer.request_id): answer.reply for answer in answers}


def make_loop(office: Office) -> tuple[Loop, Pipe, Pipe]:
    """Return a loop with its control and request sockets."""
    control, requests, events = Pipe(), Pipe(), Pipe()
    sockets = {"control": control, "requests": requests, "events": events}
    return Loop(office.desk, **cast("Any", sockets)), control, requests


def test_control_is_answered_before_ordinary_requests(home: Path) -> None:
    """A storm of renewals cannot delay a sign of life."""
    office = Office.create(home)
    loop, control, requests = make_loop(office)
    console = office.introduce(Service.CONSOLE)
    order: list[str] = []
    control.send_multipart = lambda *_: order.append("control")  # type: ignore[method-assign]  # spied
    requests.send_multipart = lambda *_: order.append("requests")  # type: ignore[method-assign]  # spied
    for number in range(5):
        requests.put(console, number, GetNode())
    control.put(console, 9, GetNode())
    loop.turn({control, requests})
    assert order == ["control", *["requests"] * 5]


def test_every_caller_of_a_drain_that_the_disk_refused_gets_an_answer(home: Path) -> None:
    """Readers get theirs, writers a typed refusal, and nobody waits for a timeout."""
    office = Office.create(home)
    loop, _, requests = make_loop(office)
    console = office.introduce(Service.CONSOLE)
    connection = office.ledger._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    requests.put(console, 0, GetNode())
    for number in range(1, 60):
        requests.put(console, number, SetEnrollment(open=not number % 2, operator="x" * 1000))
    while requests.waiting:
        loop.turn({requests})
    answers = requests.answers()
    assert set(answers) == set(range(60))
    assert isinstance(answers[0], NodeView)
    refused = [reply for reply in answers.values() if isinstance(reply, Fault)]
    assert refused
    assert {fault.code for fault in refused} == {"storage"}
    connection.execute("PRAGMA max_page_count=1000000")
    requests.put(console, 99, SetEnrollment(open=False, operator="root"))
    loop.turn({requests})
    assert isinstance(requests.answers()[99], EnrollmentView)


def test_one_drain_is_bounded(home: Path) -> None:
    """What is left waits in the socket for the next one."""
    office = Office.create(home)
    loop, _, requests = make_loop(office)
    console = office.introduce(Service.CONSOLE)
    for number in range(200):
        requests.put(console, number, GetNode())
    loop.turn({requests})
    assert 0 < len(requests.sent) <= 64
