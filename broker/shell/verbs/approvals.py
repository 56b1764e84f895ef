"""Approvals: what waits, and a person's word on it."""

from broker.core.approval import PENDING_MAX, in_turns
from broker.errors import ApprovalExpiredError, ConflictError, NotFoundError
from broker.ledger.rows import ApprovalRow
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.approval import (
    Approval,
    ApprovalsView,
    ApprovalView,
    DecideApproval,
    GetApproval,
    ListApprovals,
)
from broker.wire.facts import ApprovalDenied, ApprovalExpired, ApprovalGranted

APPROVALS_LISTED_MAX = 500
APPROVALS_READ_MAX = 2 * PENDING_MAX
"""After a merge two primaries' requests may wait together."""


def list_approvals(
    state: BrokerState, _batch: Batch, _caller: Caller, request: ListApprovals
) -> ApprovalsView:
    """Return approvals, pending first; of these everybody's oldest, then everybody's second."""
    state.known_mesh()
    limit = min(request.limit, APPROVALS_LISTED_MAX)
    shown = []
    if request.state in {"", "pending"}:
        # All of them, before the limit: which come first is decided here, not by the ledger.
        waiting = state.ledger.approvals("pending", APPROVALS_READ_MAX)
        shown = in_turns(waiting, lambda row: row.source)[:limit]
    if request.state != "pending":
        rest = state.ledger.approvals(request.state, limit + len(shown))
        decided = [row for row in rest if row.state != "pending"][: limit - len(shown)]
        shown += sorted(decided, key=lambda row: row.requested_at)
    return ApprovalsView(tuple(_approval(row) for row in shown))


def get_approval(
    state: BrokerState, _batch: Batch, _caller: Caller, request: GetApproval
) -> ApprovalView:
    """Return one approval."""
    return ApprovalView(_approval(_found(state, request.approval_id)))


def decide_approval(
    state: BrokerState, batch: Batch, caller: Caller, request: DecideApproval
) -> ApprovalView:
    """Record a decision; the same one again is no change, another one is a conflict."""
    state.mesh()
    state.full_powers(caller.now_ms)
    row = _found(state, request.approval_id)
    settle(state, batch, caller.now, (row, request))
    return ApprovalView(_approval(_found(state, row.approval_id)))


def settle(
    state: BrokerState,
    batch: Batch,
    now: UnixSeconds,
    decision: tuple[ApprovalRow, DecideApproval],
) -> None:
    """Append the decision on a pending request.

    Raises:
        ConflictError: Decided the other way before.
        ApprovalExpiredError: Too late.
    """
    row, said = decision
    if row.state == "expired" or (row.state == "pending" and row.expires_at <= now):
        raise ApprovalExpiredError(f"the request of {row.host} has expired", hint="join again")
    if row.state != "pending":
        agreed = (row.state in {"approved", "issued"}) == said.approve
        if agreed:
            return
        raise ConflictError(f"the request of {row.host} is {row.state} already")
    state.deferred_by.pop(row.approval_id, None)
    if said.approve:
        granted = ApprovalGranted(row.approval_id, said.operator, said.reason)
        batch.append(granted, said.operator)
    else:
        denied = ApprovalDenied(row.approval_id, said.operator, said.reason)
        batch.append(denied, said.operator or "approval")


def expire_approvals(state: BrokerState, batch: Batch, now: UnixSeconds) -> None:
    """Close requests nobody answered; called from the loop's tick."""
    if not state.serves:
        return
    for approval_id in state.ledger.approvals_expired(now):
        state.deferred_by.pop(approval_id, None)
        batch.append(ApprovalExpired(approval_id), "broker")


def _found(state: BrokerState, approval_id: str) -> ApprovalRow:
    state.known_mesh()
    row = state.ledger.approval(approval_id)
    if row is None:
        raise NotFoundError(f"no approval {approval_id}", hint="certmesh approval list")
    return row


def _approval(row: ApprovalRow) -> Approval:
    return Approval(
        approval_id=row.approval_id,
        host=row.host,
        sans=row.sans,
        source=row.source,
        method=row.method,
        key_fingerprint=row.key_hash,
        words=row.words,
        requested_at=UnixSeconds(row.requested_at),
        expires_at=UnixSeconds(row.expires_at),
        state=row.state,
        operator=row.operator,
        reason=row.reason,
        note=row.note,
    )
