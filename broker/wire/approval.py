"""Joins that wait for a person."""

from broker.wire.base import Body, Reply, Request
from broker.wire.ids import Count, Hex, Host, Text, UnixSeconds


class Approval(Body, frozen=True):
    """A pending or decided join; `state`: pending, approved, denied, expired or issued.

    `note` is what the policy says of it: a name that is taken, a name that was revoked.
    """

    approval_id: Hex
    host: Host
    sans: tuple[Text, ...]
    source: Text
    method: Text
    key_fingerprint: Hex
    words: tuple[Text, ...]
    requested_at: UnixSeconds
    expires_at: UnixSeconds
    state: Text
    operator: Text = ""
    reason: Text = ""
    note: Text = ""


class ApprovalView(Reply, frozen=True, tag="approval-view"):
    """One approval."""

    approval: Approval


class ApprovalsView(Reply, frozen=True, tag="approvals-view"):
    """Approvals, pending ones first, oldest first."""

    approvals: tuple[Approval, ...]


class ListApprovals(Request, frozen=True, tag="list-approvals"):
    """Ask for approvals; `state` empty means all."""

    state: Text = ""
    limit: Count = 200


class GetApproval(Request, frozen=True, tag="get-approval"):
    """Ask for one approval."""

    approval_id: Hex


class DecideApproval(Request, frozen=True, tag="decide-approval"):
    """A person (through the console) decides; `operator` is the authenticated one."""

    approval_id: Hex
    approve: bool
    operator: Text
    reason: Text = ""
