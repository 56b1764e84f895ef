"""One round: lease a pending join, have it decided, report the answer.

The credential was verified before the request became work, and nothing is locked while a person
thinks. A worker that dies mid-question loses the lease, and the next one asks again.
"""

from broker.errors import ForbiddenError, LeaseLostError, NoMeshError, NotPrimaryError
from broker.runtime.events import EventName
from broker.runtime.logs import log, log_crash
from broker.wire.approval import ApprovalsView, ListApprovals
from broker.wire.base import Event
from broker.wire.control import Ack
from broker.wire.events import WorkAvailable
from broker.wire.ids import Service
from broker.wire.work import (
    Approve,
    CompleteWork,
    Decided,
    Failed,
    Lease,
    LeaseWork,
    ReleaseLease,
    WorkAnswer,
)
from workers.approval.decider import Decider
from workers.approval.logic import crashed, waiting_state
from workers.approval.vigil import LeaseVigil
from workers.process import Desk, Outcome

PERIOD_MS = 10_000
PAUSE_MS_MIN = 250
COMPLETE_TIMEOUT_MS = 15_000
DEFERRED_MAX = 1024


class ApprovalLoop:
    """The loop; the decider is injected."""

    service = Service.APPROVAL
    wakes: tuple[type[Event], ...] = (WorkAvailable,)
    period_ms = PERIOD_MS

    def __init__(self, decider: Decider) -> None:
        self._decider = decider
        self._deferred: dict[str, None] = {}
        self._may_list = True

    def round(self, desk: Desk) -> Outcome:
        """Decide at most one join; come back at once when there was one."""
        answer = desk.ask(LeaseWork(), WorkAnswer)
        if answer.lease is None:
            pause_ms = min(max(answer.next_in_ms, PAUSE_MS_MIN), PERIOD_MS)
            return Outcome(next_in_ms=pause_ms, state=self._state(desk))
        again = self._work(desk, answer.lease)
        return Outcome(next_in_ms=0 if again else PERIOD_MS, state=self._state(desk))

    def _work(self, desk: Desk, lease: Lease) -> bool:
        """Return whether to ask for the next item at once."""
        item = lease.item
        if not isinstance(item, Approve):
            failed = Failed(detail="an approval worker only approves")
            desk.ask(CompleteWork(lease_id=lease.lease_id, result=failed), Ack)
            return False
        try:
            decided = self._decide(item, LeaseVigil(desk, lease))
            if decided is None:
                self._release(desk, lease, item)
                return False
            self._report(desk, lease, decided)
        except LeaseLostError as error:
            log(
                EventName.APPROVAL_RELEASED,
                level="warning",
                host=item.host,
                reason=error.detail,
                lease_id=lease.lease_id,
            )
            return True
        return self._note(item, decided)

    def _decide(self, item: Approve, vigil: LeaseVigil) -> Decided | None:
        try:
            return self._decider.decide(item, vigil)
        except LeaseLostError:
            raise
        except Exception as error:  # noqa: BLE001 (a decider that crashes has said no)
            log_crash(error)
            decided = crashed(error)
            log(EventName.DECIDER_CRASHED, level="error", host=item.host, reason=decided.reason)
            return decided

    def _report(self, desk: Desk, lease: Lease, decided: Decided) -> None:
        request = CompleteWork(lease_id=lease.lease_id, result=decided)
        desk.ask(request, Ack, timeout_ms=COMPLETE_TIMEOUT_MS)

    def _release(self, desk: Desk, lease: Lease, item: Approve) -> None:
        desk.ask(ReleaseLease(lease_id=lease.lease_id), Ack, timeout_ms=300)
        log(EventName.APPROVAL_RELEASED, host=item.host, reason="stopping")

    def _note(self, item: Approve, decided: Decided) -> bool:
        """Return False for a deferred request that came back: asking again at once would spin."""
        if decided.approve is not None:
            return True
        known = item.approval_id in self._deferred
        self._deferred[item.approval_id] = None
        if len(self._deferred) > DEFERRED_MAX:
            del self._deferred[next(iter(self._deferred))]
        return not known

    def _state(self, desk: Desk) -> str:
        if desk.stopping() or not self._may_list:
            return ""
        try:
            view = desk.ask(ListApprovals(state="pending", limit=100), ApprovalsView)
        except ForbiddenError:
            self._may_list = False
            return ""
        except (NoMeshError, NotPrimaryError):
            return "idle: only a primary has approvals"
        return waiting_state(len(view.approvals))
