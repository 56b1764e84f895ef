"""Facts: the payloads of the journal. Their tags are the audit trail's event names.

The roster is the fold of these. They never hold a secret. Add fields last with a default; a tag
means the same for ever.
"""

from broker.wire.base import Body, Fact
from broker.wire.ids import (
    DER,
    Count,
    Hex,
    Host,
    Port,
    Role,
    Sequence,
    ServedState,
    Term,
    Text,
    UnixSeconds,
)
from broker.wire.node import Endpoint


class MeshCreated(Fact, frozen=True, tag="mesh.created"):
    """First row of every mesh."""

    mesh_id: Hex
    name: Text
    domain: Host
    pin: Hex
    enrollment_open: bool
    approval: bool
    names: tuple[Text, ...]
    networks: tuple[Text, ...]


class AuthorityUnlocked(Fact, frozen=True, tag="ca.unlocked"):
    """The issuing key became usable."""

    slot: Text


class AuthorityUnlockFailed(Fact, frozen=True, tag="ca.unlock_failed"):
    """Somebody tried and no slot opened."""

    slot: Text


class AuthorityLocked(Fact, frozen=True, tag="ca.locked"):
    """The issuing key was forgotten on purpose."""


class EnrollmentOpened(Fact, frozen=True, tag="enrollment.opened"):
    """TOTP joins are welcome."""


class EnrollmentClosed(Fact, frozen=True, tag="enrollment.closed"):
    """TOTP joins are refused."""


class InviteCreated(Fact, frozen=True, tag="invite.created"):
    """A single-use, host-bound permission; `invite_id` is the SHA-256 of its secret."""

    invite_id: Hex
    host: Host
    sans: tuple[Text, ...]
    expires_at: UnixSeconds


class InviteUsed(Fact, frozen=True, tag="invite.used"):
    """The invite belongs to this member and key for ever."""

    invite_id: Hex
    member_id: Hex
    key_hash: Hex


class InviteRevoked(Fact, frozen=True, tag="invite.revoked"):
    """The invite is worthless."""

    invite_id: Hex


class TOTPStepUsed(Fact, frozen=True, tag="totp.step_used"):
    """A TOTP step was accepted once and never again; `key_hash` names who spent it."""

    step: Count
    key_hash: Hex = ""


class JoinRefused(Fact, frozen=True, tag="join.refused"):
    """A join was turned away; `host` is what the caller claimed, already shape-checked."""

    host: Text
    source: Text
    code: Text


class ApprovalRequested(Fact, frozen=True, tag="approval.pending"):
    """A join with a good credential waits for a person."""

    approval_id: Hex
    host: Host
    sans: tuple[Text, ...]
    csr: DER
    key_hash: Hex
    ticket_hash: Hex
    method: Text
    source: Text
    words: tuple[Text, ...]
    addresses: tuple[Text, ...]
    mesh_port: Port
    enroll_port: Port
    expires_at: UnixSeconds
    invite_id: Hex = ""


class ApprovalGranted(Fact, frozen=True, tag="approval.granted"):
    """A person said yes."""

    approval_id: Hex
    operator: Text


class ApprovalDenied(Fact, frozen=True, tag="approval.denied"):
    """A person or the decider said no."""

    approval_id: Hex
    operator: Text
    reason: Text


class ApprovalExpired(Fact, frozen=True, tag="approval.expired"):
    """Nobody said anything in time."""

    approval_id: Hex


class MemberJoined(Fact, frozen=True, tag="member.joined"):
    """A new enrollment with an id of its own."""

    member_id: Hex
    host: Host
    sans: tuple[Text, ...]
    role: Role
    endpoint: Endpoint
    method: Text
    approval_id: Hex = ""


class MemberMoved(Fact, frozen=True, tag="member.moved"):
    """A member's doors are elsewhere now."""

    member_id: Hex
    endpoint: Endpoint


class CertificateIssued(Fact, frozen=True, tag="certificate.issued"):
    """The ledger knows the serial before anybody has the certificate."""

    member_id: Hex
    serial: Hex
    key_hash: Hex
    not_before: UnixSeconds
    not_after: UnixSeconds
    renew_at: UnixSeconds
    certificate: DER


class CertificateRenewed(Fact, frozen=True, tag="certificate.renewed"):
    """As `CertificateIssued`, replacing the member's current one."""

    member_id: Hex
    serial: Hex
    key_hash: Hex
    not_before: UnixSeconds
    not_after: UnixSeconds
    renew_at: UnixSeconds
    certificate: DER
    replaces: Hex


class CertificateServed(Fact, frozen=True, tag="certificate.served"):
    """The state of the closed loop for a member changed."""

    member_id: Hex
    serial: Hex
    state: ServedState
    detail: Text


class RenewalFailed(Fact, frozen=True, tag="certificate.renewal_failed"):
    """A renewal attempt failed; written on the first failure and on each change of reason."""

    member_id: Hex
    detail: Text


class MemberRevoked(Fact, frozen=True, tag="member.revoked"):
    """Absorbing: the member and all its serials are out for ever."""

    member_id: Hex
    host: Host
    reason: Text


class AuthFailed(Fact, frozen=True, tag="auth.failed"):
    """A caller with a certificate was refused on the mesh port."""

    host: Text
    serial: Hex
    code: Text


class StandbyNominated(Fact, frozen=True, tag="standby.nominated"):
    """The primary offers this member the issuing key; it is no key holder yet."""

    member_id: Hex
    host: Host


class StandbyReady(Fact, frozen=True, tag="standby.ready"):
    """The nominated member has the key and proved that it fits."""

    member_id: Hex
    host: Host


class StandbyRemoved(Fact, frozen=True, tag="standby.removed"):
    """A nomination or a standby's role ended."""

    member_id: Hex
    host: Host
    reason: Text


class FailoverPromoted(Fact, frozen=True, tag="failover.promoted"):
    """First row of a term: who writes from now on, why, and on what evidence.

    Every other primary of the roster becomes a standby with this row.
    """

    member_id: Hex
    host: Host
    cause: Text
    evidence: Text
    caretaker: bool = False


class FailoverConfirmed(Fact, frozen=True, tag="failover.confirmed"):
    """A caretaker has full powers from now on: an operator said so, or the peer was seen."""

    host: Host
    reason: Text


class FailoverDemoted(Fact, frozen=True, tag="failover.demoted"):
    """Last row of a planned end: this primary stepped down by itself."""

    host: Host
    cause: Text
    successor: Text


class Origin(Body, frozen=True):
    """Where a fact was first written: its stamp, and the row that holds it there."""

    term: Term
    sequence: Sequence
    node: Host
    incarnation: Hex
    at: UnixSeconds
    actor: Text
    hash: Hex


class FactAdopted(Fact, frozen=True, tag="merge.adopted"):
    """A fact of another primary's journal after a fork, under its own stamp."""

    origin: Origin
    event: Text
    payload: bytes


class MergeConflict(Fact, frozen=True, tag="merge.conflict"):
    """A merge rule decided between two facts; a person should know."""

    review_id: Hex
    rule: Text
    subject: Text
    kept: Text
    lost: Text


class MergeReviewed(Fact, frozen=True, tag="merge.reviewed"):
    """A person looked at a conflict."""

    review_id: Hex


AnyFact = (
    MeshCreated
    | AuthorityUnlocked
    | AuthorityUnlockFailed
    | AuthorityLocked
    | EnrollmentOpened
    | EnrollmentClosed
    | InviteCreated
    | InviteUsed
    | InviteRevoked
    | TOTPStepUsed
    | JoinRefused
    | ApprovalRequested
    | ApprovalGranted
    | ApprovalDenied
    | ApprovalExpired
    | MemberJoined
    | MemberMoved
    | CertificateIssued
    | CertificateRenewed
    | CertificateServed
    | RenewalFailed
    | MemberRevoked
    | AuthFailed
    | StandbyNominated
    | StandbyReady
    | StandbyRemoved
    | FailoverPromoted
    | FailoverConfirmed
    | FailoverDemoted
    | FactAdopted
    | MergeConflict
    | MergeReviewed
)
