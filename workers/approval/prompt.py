"""The decider that asks a person at a terminal."""

from collections.abc import Callable

from broker.clock import boottime_ms
from broker.errors import LeaseLostError
from broker.runtime.duration import Duration
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.wire.work import Approve, Decided
from workers.approval.decider import Vigil
from workers.approval.logic import (
    NOBODY_TO_ASK,
    approved,
    denied,
    invitation,
    question,
    read_answer,
)
from workers.approval.terminal import Terminal, TerminalGoneError


class PromptDecider:
    """Asks yes or no; silence, a closed terminal and no terminal at all mean no.

    Args:
        open_terminal: Opens the person's terminal; an `OSError` means that there is none.
        operator: Login name under which the answer is recorded.
        timeout: Patience with the person.
    """

    def __init__(
        self, open_terminal: Callable[[], Terminal], operator: str, timeout: Duration
    ) -> None:
        self._open_terminal = open_terminal
        self._operator = operator
        self._timeout = timeout

    def decide(self, item: Approve, vigil: Vigil) -> Decided | None:
        """Return the person's answer, a denial, or None when the process must stop first."""
        try:
            terminal = self._open_terminal()
        except OSError:
            log(EventName.APPROVAL_DENIED, level="warning", host=item.host, reason=NOBODY_TO_ASK)
            return denied(NOBODY_TO_ASK)
        with terminal:
            try:
                self._ask(terminal, item)
                return self._listen(terminal, vigil)
            except TerminalGoneError:
                return denied("the terminal was closed before an answer", self._operator)
            except LeaseLostError:
                terminal.write("\nAnswered elsewhere, or no longer waiting.\n")
                raise

    def _ask(self, terminal: Terminal, item: Approve) -> None:
        terminal.write(question(item))
        # What was typed before the question was on the screen answered something else.
        terminal.discard_typed()
        terminal.write(invitation(item.host, self._timeout.s))

    def _listen(self, terminal: Terminal, vigil: Vigil) -> Decided | None:
        until_ms = boottime_ms() + self._timeout.ms
        while (left_ms := until_ms - boottime_ms()) > 0:
            if vigil.stopping():
                terminal.write("\nStopping; the request stays open.\n")
                return None
            vigil.wait(left_ms, terminal.fileno())
            line = terminal.read_line()
            answer = None if line is None else read_answer(line)
            if answer is not None:
                return approved(self._operator) if answer else self._refused()
            if line is not None:
                terminal.write("Please type yes or no: ")
        terminal.write("\nNo answer: denied.\n")
        return denied(f"no answer in {self._timeout.s} s")

    def _refused(self) -> Decided:
        return denied("the operator said no", self._operator)
