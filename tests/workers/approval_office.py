"""A broker with one join to decide, for tests of the approval loop and its deciders."""

from collections.abc import Callable, Mapping
from typing import Any

from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.approval import ApprovalsView, ListApprovals
from broker.wire.base import Reply, Request
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.work import (
    Approve,
    CompleteWork,
    Decided,
    ExtendLease,
    Lease,
    LeaseWork,
    ReleaseLease,
    WorkAnswer,
    WorkItem,
)
from tests.stub_broker import StubBroker
from tests.workers.loop_desk import StopByHand, desk_at
from workers.approval.loop import ApprovalLoop
from workers.process import Outcome

ITEM = Approve(
    approval_id="0a" * 16,
    host="node-c",
    sans=("node-c.home.internal",),
    source="127.0.0.4",
    method="totp",
    key_fingerprint="cd" * 32,
    words=("acorn", "bishop", "cactus", "dollar"),
)


class Office:
    """A broker with one lease to give, then none; counts what came back."""

    def __init__(self, paths: Paths, settings: Settings, ttl_ms: int = 30_000) -> None:
        self.paths, self.settings, self.ttl_ms = paths, settings, ttl_ms
        self.items: list[WorkItem] = [ITEM]
        self.stop = StopByHand()
        self.extra: dict[type[Request], Callable[[Any], Reply | None]] = {}
        self.broker = StubBroker(paths, self._answers())

    def _answers(self) -> Mapping[type[Request], Callable[[Any], Reply | None]]:
        return {
            LeaseWork: lambda _: self._lease(),
            CompleteWork: lambda call: self._or(CompleteWork, call),
            ExtendLease: lambda call: self._or(ExtendLease, call),
            ReleaseLease: lambda _: Ack(),
            ListApprovals: lambda call: self._or(ListApprovals, call),
        }

    def _or(self, kind: type[Request], call: Request) -> Reply | None:
        if kind in self.extra:
            return self.extra[kind](call)
        return ApprovalsView(approvals=()) if kind is ListApprovals else Ack()

    def _lease(self) -> WorkAnswer:
        if not self.items:
            return WorkAnswer(lease=None, next_in_ms=4000)
        lease = Lease(lease_id=7, ttl_ms=self.ttl_ms, item=self.items.pop(0))
        return WorkAnswer(lease=lease, next_in_ms=0)

    def round(self, loop: ApprovalLoop) -> Outcome:
        """Run one round in this thread."""
        with self.broker, desk_at(self.paths, self.settings, Service.APPROVAL, self.stop) as desk:
            return loop.round(desk)

    def result(self) -> Decided:
        """Return the one decision that arrived."""
        (call,) = self.broker.seen(CompleteWork)
        assert call.lease_id == 7
        assert isinstance(call.result, Decided)
        return call.result
