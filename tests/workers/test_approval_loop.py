"""The approval loop against a stub broker, and the prompt over a real pseudo terminal."""

import contextlib
import fcntl
import logging
import os
import pty
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import ForbiddenError, LeaseLostError, NotPrimaryError
from broker.runtime.duration import Duration
from broker.runtime.events import EventName
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.units import UnixSeconds
from broker.wire.approval import Approval, ApprovalsView, ListApprovals
from broker.wire.base import Reply, Request
from broker.wire.ids import Service
from broker.wire.liveness import Beat, Ready
from broker.wire.work import (
    Approve,
    CompleteWork,
    Decided,
    ExtendLease,
    Failed,
    Rekey,
    ReleaseLease,
)
from tests.support import eventually
from tests.workers.approval_office import ITEM, Office
from tests.workers.loop_desk import desk_at, logged, run_module
from workers.approval.decider import DenyDecider, QueueDecider, Vigil
from workers.approval.logic import NOBODY_TO_ASK
from workers.approval.loop import PERIOD_MS, ApprovalLoop
from workers.approval.prompt import PromptDecider
from workers.approval.terminal import Terminal
from workers.process import Outcome


class Person:
    """Reads and types at the other end of a pseudo terminal."""

    def __init__(self) -> None:
        self._master, self._slave = pty.openpty()
        self.path = Path(os.ttyname(self._slave))
        self.opened = 0
        self._screen = b""

    def open(self) -> Terminal:
        """Open the terminal as the decider does."""
        self.opened += 1
        return Terminal(self.path)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def sees(self, text: str) -> bool:
        """Return whether `text` is on the screen by now."""
        os.set_blocking(self._master, False)
        with contextlib.suppress(OSError):
            self._screen += os.read(self._master, 65536)
        return text in self._screen.decode(errors="replace")

    def typed_ahead(self) -> bool:
        """Return whether a whole line waits in the terminal's input queue."""
        os.set_blocking(self._slave, False)
        waiting = bytearray(4)
        fcntl.ioctl(self._slave, termios.FIONREAD, waiting)
        return int.from_bytes(waiting, "little") > 0

    def answers(self, text: str) -> threading.Thread:
        """Type `text` once the question is on the screen."""

        def wait_and_type() -> None:
            eventually(lambda: self.sees("yes or no"))
            self.type(text)

        thread = threading.Thread(target=wait_and_type)
        thread.start()
        return thread

    def leave(self) -> None:
        """Close the window."""
        for fd in (self._master, self._slave):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def person() -> Iterator[Person]:
    """Somebody at a terminal."""
    somebody = Person()
    yield somebody
    somebody.leave()


@pytest.fixture
def office(paths: Paths, settings: Settings) -> Iterator[Office]:
    """A broker with one join to decide."""
    one = Office(paths, settings)
    yield one
    one.stop.close()


def prompt_loop(person: Person, timeout_ms: int = 5000) -> ApprovalLoop:
    """Return the loop that asks `person`."""
    return ApprovalLoop(PromptDecider(person.open, "anna", Duration(timeout_ms)))


def test_with_nobody_to_ask_the_answer_is_no_and_it_is_logged(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    """The CA is never weakened silently."""
    caplog.set_level(logging.DEBUG, "certmesh")

    office.round(ApprovalLoop(DenyDecider()))

    assert office.result() == Decided(approve=False, operator="", reason=NOBODY_TO_ASK)
    (line,) = logged(caplog, EventName.APPROVAL_DENIED)
    assert line["reason"] == "enrollment auto-denied (no interactive console to approve)"


def test_a_queued_request_stays_pending_and_is_counted(office: Office) -> None:
    """The command and the dashboard decide; `certmesh ps` shows that somebody waits."""
    pending = Approval(
        approval_id=ITEM.approval_id,
        host=ITEM.host,
        sans=ITEM.sans,
        source=ITEM.source,
        method=ITEM.method,
        key_fingerprint=ITEM.key_fingerprint,
        words=ITEM.words,
        requested_at=UnixSeconds(1),
        expires_at=UnixSeconds(2),
        state="pending",
    )
    office.extra[ListApprovals] = lambda _: ApprovalsView(approvals=(pending,))

    outcome = office.round(ApprovalLoop(QueueDecider()))

    assert office.result().approve is None
    assert outcome.state == "1 waiting for a person"


def test_a_deferred_request_that_comes_back_does_not_make_the_loop_spin(
    office: Office,
) -> None:
    """Should the broker offer it again, the loop takes its time."""
    office.items = [ITEM, ITEM]
    loop = ApprovalLoop(QueueDecider())

    with office.broker, desk_at(office.paths, office.settings, Service.APPROVAL) as desk:
        first, second = loop.round(desk), loop.round(desk)

    assert first.next_in_ms == 0
    assert second.next_in_ms == PERIOD_MS


def test_without_work_the_loop_asks_again_when_the_broker_says(office: Office) -> None:
    """And shows that the queue is empty."""
    office.items = []

    outcome = office.round(ApprovalLoop(DenyDecider()))

    assert outcome == Outcome(next_in_ms=4000, state="nothing to decide")


def test_a_worker_that_may_not_list_approvals_asks_once(office: Office) -> None:
    """The count is a courtesy; a refusal must not repeat itself in the broker's log."""

    def forbid(_: Request) -> Reply:
        raise ForbiddenError("not for you")

    office.items = []
    office.extra[ListApprovals] = forbid
    loop = ApprovalLoop(DenyDecider())

    with office.broker, desk_at(office.paths, office.settings, Service.APPROVAL) as desk:
        assert [loop.round(desk).state for _ in range(2)] == ["", ""]

    assert len(office.broker.seen(ListApprovals)) == 1


def test_on_a_member_the_loop_idles_and_nothing_is_wrong(office: Office) -> None:
    """Every node runs this process; only the primary has approvals."""

    def elsewhere(_: Request) -> Reply:
        raise NotPrimaryError("nas is not the primary")

    office.items = []
    office.extra[ListApprovals] = elsewhere

    outcome = office.round(ApprovalLoop(DenyDecider()))

    assert outcome.error == ""
    assert outcome.state.startswith("idle")


def test_work_of_another_kind_is_handed_back_as_failed(office: Office) -> None:
    """A confused broker must not get a decision about nothing."""
    office.items = [Rekey(host="node-c")]

    office.round(ApprovalLoop(DenyDecider()))

    (call,) = office.broker.seen(CompleteWork)
    assert isinstance(call.result, Failed)


def test_a_decider_that_crashes_has_said_no(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a decider must not let anybody in, nor keep them waiting for ever (row 47, P14)."""
    caplog.set_level(logging.DEBUG, "certmesh")

    class Broken:
        def decide(self, item: Approve, vigil: Vigil) -> Decided | None:
            raise RuntimeError(f"no idea about {item.host} {vigil}")

    office.round(ApprovalLoop(Broken()))

    assert office.result() == Decided(
        approve=False, operator="", reason="the decider failed: RuntimeError"
    )
    assert logged(caplog, EventName.DECIDER_CRASHED)


def test_a_yes_is_signed_with_the_operators_name(office: Office, person: Person) -> None:
    """The journal says who let the node in."""
    typing = person.answers("yes\n")

    office.round(prompt_loop(person))

    typing.join()
    assert office.result() == Decided(approve=True, operator="anna", reason="")


def test_a_no_is_a_no(office: Office, person: Person) -> None:
    """With the operator's name on it."""
    typing = person.answers("n\n")

    office.round(prompt_loop(person))

    typing.join()
    assert (office.result().approve, office.result().operator) == (False, "anna")


def test_an_unclear_answer_is_asked_again(office: Office, person: Person) -> None:
    """Enter alone is neither yes nor no."""
    typing = person.answers("\nmaybe\nyes\n")

    office.round(prompt_loop(person))

    typing.join()
    assert office.result().approve is True
    assert person.sees("Please type yes or no")


def test_an_answer_typed_ahead_does_not_go_to_the_next_host(office: Office, person: Person) -> None:
    """Defect 21: a second yes, meant for the host before, let the next one in."""
    person.type("yes\nyes\n")
    eventually(person.typed_ahead)

    office.round(prompt_loop(person, timeout_ms=300))

    assert office.result().approve is False
    assert "no answer" in office.result().reason


def test_nobody_answers_in_time(office: Office, person: Person) -> None:
    """Silence is a no, in words that say how long it was (row 47, P14)."""
    office.round(prompt_loop(person, timeout_ms=1000))

    assert office.result() == Decided(approve=False, operator="", reason="no answer in 1 s")


def test_a_closed_terminal_is_a_no(office: Office, person: Person) -> None:
    """The window went away; nobody said yes."""

    def wait_and_leave() -> None:
        eventually(lambda: person.sees("yes or no"))
        person.leave()

    leaving = threading.Thread(target=wait_and_leave)
    leaving.start()

    office.round(prompt_loop(person))

    leaving.join()
    assert office.result().approve is False
    assert "terminal was closed" in office.result().reason


def test_end_of_input_is_a_no(office: Office, person: Person) -> None:
    """Control-D is no yes."""
    typing = person.answers("\x04")

    office.round(prompt_loop(person))

    typing.join()
    assert office.result().approve is False


def test_a_prompt_without_a_terminal_denies(office: Office) -> None:
    """A supervised process has nobody to ask."""

    def no_terminal() -> Terminal:
        return Terminal(Path("/dev/null"))

    office.round(ApprovalLoop(PromptDecider(no_terminal, "anna", Duration(5000))))

    assert office.result().reason == NOBODY_TO_ASK


def test_the_worker_beats_and_keeps_its_lease_while_a_person_thinks(
    office: Office, person: Person
) -> None:
    """Five minutes of thought must look neither hung nor abandoned."""
    office.ttl_ms = 300

    def answer_late() -> None:
        eventually(lambda: len(office.broker.seen(ExtendLease)) >= 3)
        person.type("yes\n")

    thinking = threading.Thread(target=answer_late)
    thinking.start()
    beats_before = len(office.broker.seen(Beat))

    office.round(prompt_loop(person))

    thinking.join()
    assert office.result().approve is True
    assert {call.lease_id for call in office.broker.seen(ExtendLease)} == {7}
    assert len(office.broker.seen(Beat)) > beats_before + 1


def test_a_question_that_went_to_another_worker_is_dropped(
    office: Office, person: Person, caplog: pytest.LogCaptureFixture
) -> None:
    """A yes after the lease ended must not complete another worker's question."""
    caplog.set_level(logging.DEBUG, "certmesh")
    office.ttl_ms = 300

    def lost(_: Request) -> Reply:
        raise LeaseLostError("lease 7 ended")

    office.extra[ExtendLease] = lost

    outcome = office.round(prompt_loop(person))

    assert office.broker.seen(CompleteWork) == []
    assert outcome.next_in_ms == 0
    assert person.sees("Answered elsewhere")
    assert logged(caplog, EventName.APPROVAL_RELEASED)


def test_a_broker_that_is_away_for_a_moment_does_not_end_the_question(
    office: Office, person: Person
) -> None:
    """The person goes on reading; the answer counts if the lease still does."""
    office.ttl_ms = 300

    def busy(_: Request) -> Reply:
        raise ForbiddenError("in the middle of a restart")

    office.extra[ExtendLease] = busy

    def answer_late() -> None:
        eventually(lambda: len(office.broker.seen(ExtendLease)) >= 2)
        person.type("yes\n")

    thinking = threading.Thread(target=answer_late)
    thinking.start()

    office.round(prompt_loop(person))

    thinking.join()
    assert office.result().approve is True


def test_a_stop_in_mid_question_hands_the_request_back(office: Office, person: Person) -> None:
    """Stopping a worker decides nothing about the node that waits."""

    def stop_when_asked() -> None:
        eventually(lambda: person.sees("yes or no"))
        office.stop.ask()

    stopping = threading.Thread(target=stop_when_asked)
    stopping.start()

    office.round(prompt_loop(person, timeout_ms=30_000))

    stopping.join()
    assert [call.lease_id for call in office.broker.seen(ReleaseLease)] == [7]
    assert office.broker.seen(CompleteWork) == []


def test_one_round_as_a_process(office: Office) -> None:
    """`python -m workers.approval SETTINGS --once` denies by default and exits 0."""
    with office.broker:
        process = run_module("workers.approval", office.paths, "--once")
        output, _ = process.communicate(timeout=20)

    assert process.returncode == 0, output
    assert office.result().reason == NOBODY_TO_ASK


def test_the_command_line_overrides_the_setting(office: Office) -> None:
    """An operator's own worker has a name of its own next to the one of the process table."""
    with office.broker:
        process = run_module("workers.approval", office.paths, "--once", "--decider", "queue")
        output, _ = process.communicate(timeout=20)

    assert process.returncode == 0, output
    assert office.result().approve is None
    (ready,) = office.broker.seen(Ready)
    assert ready.instance == f"approval-queue-{process.pid}"


def test_an_unknown_decider_is_wrong_usage(office: Office) -> None:
    """One line on stderr, exit 2."""
    process = run_module("workers.approval", office.paths, "--decider", "allow")
    output, _ = process.communicate(timeout=20)

    assert process.returncode == 2
    assert output.strip() == "certmesh: --decider takes one of deny, queue, prompt, webhook"
