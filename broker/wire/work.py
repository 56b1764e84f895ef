"""Leased work: anything exactly one worker must do.

A lease is a grant until `ttl_ms` from now, with a fencing number. Completion with a stale number
is refused where the write happens.
"""

from broker.wire.base import Body, Message, Reply, Request
from broker.wire.claims import KeyProof, SignedMandate
from broker.wire.ids import DER, Count, Hex, Host, LeaseId, ServedState, Term, Text, UnixSeconds
from broker.wire.node import Endpoint
from broker.wire.notice import Notice
from broker.wire.policy import Fraction


class RenewMember(Message, frozen=True, tag="renew-member"):
    """CA sweep: ask `endpoint` for a CSR, have it signed, deliver it, report.

    `mandate` is what a worker on another machine shows to the member.
    """

    host: Host
    member_id: Hex
    endpoint: Endpoint
    serial: Hex
    not_after: UnixSeconds
    term: Term
    mandate: SignedMandate | None = None


class RenewOwn(Message, frozen=True, tag="renew-own"):
    """This node's own certificate is due.

    With `via_broker` the CSR goes to the local broker (this node is the primary), else to
    `primary` over mTLS. With `by_old_key` the certificate has expired: mutual TLS is over, and the
    old key signs for the new one at the enrol doors in `doors`, tried in that order. With `fresh`
    an operator asked: a certificate that failed to come into service is tried again only if young.
    One that waits on disk is taken while it is younger than `renew_at` of its lifetime.
    """

    host: Host
    sans: tuple[Text, ...]
    via_broker: bool
    primary: Endpoint | None
    by_old_key: bool = False
    doors: tuple[Endpoint, ...] = ()
    fresh: bool = False
    renew_at: Fraction = 0.667


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


class RunHooks(Message, frozen=True, tag="run-hooks"):
    """Something happened to this node: `revoked`, `ca_changed` or `crl_changed`; tell its hooks."""

    host: Host
    event: Text


class SendNotice(Message, frozen=True, tag="send-notice"):
    """Tell the people of `[notify]`; `waiting` are the targets to send it to now."""

    host: Host
    notice: Notice
    waiting: tuple[Text, ...]


WorkItem = RenewMember | RenewOwn | Rekey | Install | Approve | RunHooks | SendNotice


class Lease(Body, frozen=True):
    """One granted item of work."""

    lease_id: LeaseId
    ttl_ms: Count
    item: WorkItem


class LeaseWork(Request, frozen=True, tag="lease-work"):
    """Ask for one item for my service.

    With `local` false only members of the sweep: the caller has some in flight, and a hook of this
    node would keep it from them.
    """

    local: bool = True


class WorkAnswer(Reply, frozen=True, tag="work-answer"):
    """A lease, or None with the time after which asking again makes sense.

    `local_waits`: this node has work of its own; finish what is in flight, then ask for it.
    """

    lease: Lease | None
    next_in_ms: Count
    local_waits: bool = False


class ExtendLease(Request, frozen=True, tag="extend-lease"):
    """I am still at it."""

    lease_id: LeaseId
    ttl_ms: Count


class Rekeyed(Message, frozen=True, tag="rekeyed"):
    """Result of `Rekey`; `proof` is by the key of the live certificate, if there is one."""

    csr: DER
    proof: KeyProof | None = None


class Installed(Message, frozen=True, tag="installed"):
    """Result of `Install`, `RenewOwn` and `RenewMember`."""

    serial: Hex
    state: ServedState
    detail: Text
    hook_ms: Count = 0


class Failed(Message, frozen=True, tag="failed"):
    """The work could not be done now; the broker backs the item off.

    With `queued` nobody refused it: whoever issues certificates has too much to do just now.
    """

    detail: Text
    queued: bool = False


class Decided(Message, frozen=True, tag="decided"):
    """Result of `Approve`; `approve` None leaves the request pending for a person."""

    approve: bool | None
    operator: Text
    reason: Text


class HooksRan(Message, frozen=True, tag="hooks-ran"):
    """Result of `RunHooks`; `detail` names the hooks that failed, empty when none did."""

    detail: Text = ""


class Sent(Message, frozen=True, tag="sent"):
    """Result of `SendNotice`: which targets took it, and why others did not.

    `retry_after_ms` is the pause that a target asked for, 0 when none did.
    """

    taken: tuple[Text, ...]
    detail: Text = ""
    retry_after_ms: Count = 0


WorkResult = Rekeyed | Installed | Failed | Decided | HooksRan | Sent


class CompleteWork(Request, frozen=True, tag="complete-work"):
    """The outcome of leased work; refused with `lease_lost` when the number is stale."""

    lease_id: LeaseId
    result: WorkResult


class ReleaseLease(Request, frozen=True, tag="release-lease"):
    """Hand the item back untouched (polite stop)."""

    lease_id: LeaseId
