"""Who answers: the interface of a decider, and the two that ask nobody here.

A decider returns a `Decided`, or None when the process was asked to stop and the question should
go to the next worker. Whatever it raises counts as a denial.
"""

from typing import Protocol

from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.wire.work import Approve, Decided
from workers.approval.logic import NOBODY_TO_ASK, deferred, denied


class Vigil(Protocol):
    """How a decider waits: the lease is kept, the worker keeps beating, a stop is noticed."""

    def wait(self, ms: int, /, *fds: int) -> None:
        """Sleep until a descriptor is readable, a stop is asked, or the time is over.

        Raises:
            LeaseLostError: The question went to another worker.
        """
        ...

    def stopping(self) -> bool:
        """Return whether the process was asked to stop."""
        ...


class Decider(Protocol):
    """Answers one question at a time; may take long."""

    def decide(self, item: Approve, vigil: Vigil) -> Decided | None:
        """Return the answer, or None to hand the question back."""
        ...


class DenyDecider:
    """The safe default where there is nobody to ask: no, and visibly so."""

    def decide(self, item: Approve, vigil: Vigil) -> Decided | None:
        """Deny."""
        del vigil
        log(EventName.APPROVAL_DENIED, level="warning", host=item.host, reason=NOBODY_TO_ASK)
        return denied(NOBODY_TO_ASK)


class QueueDecider:
    """Leaves the request where it is durable, for `certmesh approval` and the dashboard."""

    def decide(self, item: Approve, vigil: Vigil) -> Decided | None:
        """Defer."""
        del vigil
        log(EventName.APPROVAL_DEFERRED, host=item.host, approval_id=item.approval_id)
        return deferred()
