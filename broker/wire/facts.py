"""Facts: the payloads of the journal. Their tags are the audit trail's event names.

The roster is the fold of these. They never hold a secret. Add fields last with a default; a tag
means the same for ever.
"""

from broker.wire.authority_facts import (
    ActionRefused,
    AuditBroken,
    AuthorityLocked,
    AuthorityUnlocked,
    AuthorityUnlockFailed,
    BackupCreated,
    BackupRestored,
    HalfGiven,
    MeshDestroyed,
    RolloverAborted,
    RolloverFinished,
    RolloverRetired,
    RolloverStarted,
    SlotAdded,
    SlotRemoved,
)
from broker.wire.base import Fact
from broker.wire.door_facts import (
    ApprovalDenied,
    ApprovalExpired,
    ApprovalGranted,
    ApprovalRequested,
    AuthFailed,
    EnrollmentClosed,
    EnrollmentOpened,
    InviteCreated,
    InviteRevoked,
    InviteUsed,
    JoinRefused,
    PolicyChanged,
    TokenMade,
    TokenRevoked,
    TOTPRotated,
    TOTPStepUsed,
)
from broker.wire.ids import (
    DER,
    Hex,
    Host,
    Role,
    ServedState,
    Text,
    UnixSeconds,
)
from broker.wire.node import Endpoint
from broker.wire.policy import Policy
from broker.wire.succession_facts import (
    FactAdopted,
    FailoverConfirmed,
    FailoverDemoted,
    FailoverPromoted,
    MergeConflict,
    MergeReviewed,
    Origin,
    StandbyNominated,
    StandbyReady,
    StandbyRemoved,
)
from broker.wire.worker_facts import WorkerBound, WorkerEnrolled, WorkerRevoked

__all__ = [
    "ActionRefused",
    "AnyFact",
    "ApprovalDenied",
    "ApprovalExpired",
    "ApprovalGranted",
    "ApprovalRequested",
    "AuditBroken",
    "AuthFailed",
    "AuthorityLocked",
    "AuthorityUnlockFailed",
    "AuthorityUnlocked",
    "BackupCreated",
    "BackupRestored",
    "CertificateIssued",
    "CertificateRenewed",
    "CertificateServed",
    "EnrollmentClosed",
    "EnrollmentOpened",
    "FactAdopted",
    "FailoverConfirmed",
    "FailoverDemoted",
    "FailoverPromoted",
    "HalfGiven",
    "InviteCreated",
    "InviteRevoked",
    "InviteUsed",
    "JoinRefused",
    "MemberJoined",
    "MemberMoved",
    "MemberReinstated",
    "MemberRenamed",
    "MemberRevoked",
    "MergeConflict",
    "MergeReviewed",
    "MeshCreated",
    "MeshDestroyed",
    "Origin",
    "PolicyChanged",
    "RenewalFailed",
    "RolloverAborted",
    "RolloverFinished",
    "RolloverRetired",
    "RolloverStarted",
    "SlotAdded",
    "SlotRemoved",
    "StandbyNominated",
    "StandbyReady",
    "StandbyRemoved",
    "TOTPRotated",
    "TOTPStepUsed",
    "TokenMade",
    "TokenRevoked",
    "WorkerBound",
    "WorkerEnrolled",
    "WorkerRevoked",
]


class MeshCreated(Fact, frozen=True, tag="mesh.created"):
    """First row of every mesh; backups are sealed to `recovery_key`, a public key (X25519)."""

    mesh_id: Hex
    name: Text
    domain: Host
    pin: Hex
    enrollment_open: bool
    approval: bool
    names: tuple[Text, ...]
    networks: tuple[Text, ...]
    policy: Policy | None = None
    root_crl: DER = b""
    recovery_key: Hex = ""


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
    """As `CertificateIssued`, replacing the member's current one.

    With `by_old_key` the member asked after its certificate had expired, within `expired_grace`.
    """

    member_id: Hex
    serial: Hex
    key_hash: Hex
    not_before: UnixSeconds
    not_after: UnixSeconds
    renew_at: UnixSeconds
    certificate: DER
    replaces: Hex
    by_old_key: bool = False


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
    """Absorbing: the member and all its serials are out for ever.

    `cause`: `revoked` (by a person, or by a merge rule), `left` (it gave its certificate back),
    `rejoined` (the same host came back with a new identity).
    """

    member_id: Hex
    host: Host
    reason: Text
    cause: Text = "revoked"


class MemberReinstated(Fact, frozen=True, tag="member.reinstated"):
    """A person lifted the bar on a revoked host's name; its old identity stays revoked."""

    host: Host
    member_id: Hex


class MemberRenamed(Fact, frozen=True, tag="member.renamed"):
    """The same identity under another name; certificates with the old names run out."""

    member_id: Hex
    before: Host
    host: Host
    sans: tuple[Text, ...]
    endpoint: Endpoint


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
    | MemberReinstated
    | MemberRenamed
    | PolicyChanged
    | TOTPRotated
    | SlotAdded
    | SlotRemoved
    | HalfGiven
    | TokenMade
    | TokenRevoked
    | BackupCreated
    | BackupRestored
    | RolloverStarted
    | RolloverFinished
    | RolloverAborted
    | RolloverRetired
    | MeshDestroyed
    | AuditBroken
    | ActionRefused
    | WorkerEnrolled
    | WorkerBound
    | WorkerRevoked
)
