"""Leased work: anything exactly one worker must do.

A lease is a grant until `ttl_ms` from now, with a fencing number. Completion with a stale number
is refused where the write happens.
"""

from broker.wire.base import Body, Message, Reply, Request
from broker.wire.ids import DER, Count, Hex, Host, LeaseId, ServedState, Term, Text, UnixSeconds
from broker.wire.node import Endpoint


class RenewMember(Message, frozen=True, tag="renew-member"):
    """CA sweep: ask `endpoint` for a CSR, have it signed, deliver it, report."""

    host: Host
    member_id: Hex
    endpoint: Endpoint
    serial: Hex
    not_after: UnixSeconds
    term: Term


class RenewOwn(Message, frozen=True, tag="renew-own"):
    """This node's own certificate is due.

    With `via_broker` the CSR goes to the local broker (this node is the primary), else to
    `primary` over mTLS.
    """

    host: Host
    sans: tuple[Text, ...]
    via_broker: bool
    primary: Endpoint | None


class Rekey(Message, frozen=True, tag="rekey"):
    """Make a fresh key and CSR for this node; the key stays in the pending directory."""

    host: Host


class Install(Message, frozen=True, tag="install"):
    """Install this certificate for the pending key, run hooks, probe."""

    host: Host
    leaf: DER
    issuing: DER


class Approve(Message, frozen=True, tag="approve"):
    """Ask the decider about one pending join; `note` is what the policy says of it."""

    approval_id: Hex
    host: Host
    sans: tuple[Text, ...]
    source: Text
    method: Text
    key_fingerprint: Hex
    words: tuple[Text, ...]
    note: Text = ""
    mesh: Text = ""


WorkItem = RenewMember | RenewOwn | Rekey | Install | Approve


class Lease(Body, frozen=True):
    """One granted item of work."""

    lease_id: LeaseId
    ttl_ms: Count
    item: WorkItem


class LeaseWork(Request, frozen=True, tag="lease-work"):
    """Ask for one item for my service."""


class WorkAnswer(Reply, frozen=True, tag="work-answer"):
    """A lease, or None with the time after which asking again makes sense."""

    lease: Lease | None
    next_in_ms: Count


class ExtendLease(Request, frozen=True, tag="extend-lease"):
    """I am still at it."""

    lease_id: LeaseId
    ttl_ms: Count


class Rekeyed(Message, frozen=True, tag="rekeyed"):
    """Result of `Rekey`."""

    csr: DER


class Installed(Message, frozen=True, tag="installed"):
    """Result of `Install`, `RenewOwn` and `RenewMember`."""

    serial: Hex
    state: ServedState
    detail: Text
    hook_ms: Count = 0


class Failed(Message, frozen=True, tag="failed"):
    """The work could not be done now; the broker backs the item off."""

    detail: Text


class Decided(Message, frozen=True, tag="decided"):
    """Result of `Approve`; `approve` None leaves the request pending for a person."""

    approve: bool | None
    operator: Text
    reason: Text


WorkResult = Rekeyed | Installed | Failed | Decided


class CompleteWork(Request, frozen=True, tag="complete-work"):
    """The outcome of leased work; refused with `lease_lost` when the number is stale."""

    lease_id: LeaseId
    result: WorkResult


class ReleaseLease(Request, frozen=True, tag="release-lease"):
    """Hand the item back untouched (polite stop)."""

    lease_id: LeaseId
