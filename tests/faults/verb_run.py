"""Kills the broker in the middle of one request and asks again with the same id.

The journal of the two lives is compared with that of a run in which the request was answered
before the kill: one effect, or none and a typed refusal that says why.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from broker.shell.vault import load_vault
from broker.wire.base import Reply, Request
from broker.wire.codec import encode
from broker.wire.control import Fault
from broker.wire.ids import Service
from broker.wire.messages import Answer
from tests.faults.crash import Lab
from tests.faults.lone import BrokerDiedError, Caller, Home, Nursery
from tests.faults.verb_table import Case, Stage

POINTS = (
    "decide.before",
    "row.after",
    "decide.after",
    "commit.before",
    "head.after",
    "commit.after",
    "answer.before",
    "send.after",
)
"""From a request that nobody has looked at to one that is answered."""
FILES = ("write-new.before", "write-new.after", "write-atomic.after", "job.before", "job.after")
"""Points of requests that work off the loop or with files."""


@dataclass(frozen=True)
class Outcome:
    """What came of one request over two lives of the broker.

    Attributes:
        first: What the first life answered; None when it died before.
        second: What the second life answered, asked with the same id.
        third: What it answered when asked once more.
        events: What the journal has since the stage, without the lives' own beginnings.
        slots: Ways to unlock that the vault has in the end.
    """

    first: Answer | None
    second: Answer
    third: Answer
    events: tuple[str, ...]
    slots: int


def run_case(lab: Lab, stage: Stage, case: Case, point: str) -> Outcome:
    """Do one case on a copy of the stage; an empty `point` kills after the first answer."""
    nursery = lab.nursery
    home = stage.home.copied()
    try:
        request_id = secrets.token_bytes(16)
        with _life(home, nursery) as life:
            request = case.ready(stage, life.ask)
            life.meet(case.service)
            if point and lab.arm is not None:
                lab.arm(home, point)
            elif point:
                nursery.arm(point)
            first = life.answer(case.service, request_id, request)
        lab.after_death(home)
        with _life(home, nursery) as life:
            second = life.answer(case.service, request_id, request)
            assert second is not None, home.log()[-2000:]
            third = second
            if case.remembered:
                third = life.answer(case.service, request_id, request) or second
        return Outcome(first, second, third, _events(stage, home), _slots(home))
    finally:
        home.remove()


def verdict(case: Case, control: Outcome, outcome: Outcome) -> str:
    """Return what is wrong, empty when nothing is."""
    refused = isinstance(outcome.second.reply, Fault)
    if case.remembered and _words(outcome.second) != _words(outcome.third):
        return f"two answers: {outcome.second.reply} and {outcome.third.reply}"
    if case.remembered and outcome.first and _words(outcome.first) != _words(outcome.second):
        return f"another answer: {outcome.first.reply}, after the kill {outcome.second.reply}"
    if isinstance(outcome.second.reply, Fault) and outcome.second.reply.code in _BUGS:
        return f"an untyped refusal: {outcome.second.reply}"
    events = tuple(dict.fromkeys(outcome.events)) if case.row_first else outcome.events
    if events != control.events and not (refused and _is_part(outcome, control)):
        return f"effects {outcome.events}, without a kill {control.events}"
    if refused:
        done = _was_done(case, control, outcome)
        return f"it was done, and its retry is refused: {outcome.second.reply}" if done else ""
    same = outcome.slots == control.slots
    return "" if same else f"{outcome.slots} slots, without a kill {control.slots}"


_NOISE = {"ca.unlocked", "action.refused"}
"""Rows that each life, or a refused repetition, may add."""
_BUGS = {"internal", "malformed", "unregistered"}


def _is_part(outcome: Outcome, control: Outcome) -> bool:
    """Whether the run has only the beginning of what the control has: what was asked before."""
    return outcome.events == control.events[: len(outcome.events)]


def _was_done(case: Case, control: Outcome, outcome: Outcome) -> bool:
    """Whether the whole effect is there of a request whose answer is kept with it."""
    is_kept = case.remembered and not case.row_first and bool(control.events)
    succeeds = not isinstance(control.second.reply, Fault)
    return is_kept and succeeds and outcome.events == control.events


def _words(answer: Answer) -> bytes:
    return encode(answer)[1]


class _Life:
    def __init__(self, home: Home, nursery: Nursery) -> None:
        self._home, self._nursery = home, nursery
        self._callers: dict[Service, Caller] = {}

    def meet(self, service: Service) -> Caller:
        """Introduce a process of this service, once."""
        if service not in self._callers:
            self._callers[service] = Caller(self._home, self._nursery, service)
        return self._callers[service]

    def answer(self, service: Service, request_id: bytes, request: Request) -> Answer | None:
        """Ask; None when the broker dies of it."""
        try:
            return self.meet(service).ask(request_id, request)
        except BrokerDiedError:
            return None

    def ask(self, service: Service, request: Request) -> Reply:
        """Ask for something a case needs."""
        answer = self.answer(service, secrets.token_bytes(16), request)
        assert answer is not None, self._home.log()[-2000:]
        assert not isinstance(answer.reply, Fault), answer
        return answer.reply

    def close(self) -> None:
        """Leave."""
        for caller in self._callers.values():
            caller.close()


@contextmanager
def _life(home: Home, nursery: Nursery) -> Iterator[_Life]:
    nursery.disarm()
    nursery.start(home)
    life = _Life(home, nursery)
    try:
        yield life
    finally:
        life.close()
        nursery.disarm()
        status = nursery.kill()
    assert status == -9, (status, home.log()[-2000:])


def _events(stage: Stage, home: Home) -> tuple[str, ...]:
    with stage.home.ledger_copy() as before, home.ledger_copy() as after:
        assert after.verify_chain()[2] is None
        assert after.differing_projections() == ()
        rows: list[Any] = after.audit(before.head.sequence, 500)
    return tuple(row.event for row in rows if row.event not in _NOISE)


def _slots(home: Home) -> int:
    vault = load_vault(home.paths.authority)
    assert vault is not None
    return len(vault.sealed.slots)
