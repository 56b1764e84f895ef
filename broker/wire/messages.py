"""The unions: every request, reply, event, and the envelopes they travel in."""

from broker.wire.approval import (
    ApprovalsView,
    ApprovalView,
    DecideApproval,
    GetApproval,
    ListApprovals,
)
from broker.wire.audit import (
    AuditVerdict,
    AuditView,
    ComplianceView,
    GetCompliance,
    ListAudit,
    VerifyAudit,
)
from broker.wire.authority import AuthorityView, GetAuthority, LockAuthority, UnlockAuthority
from broker.wire.backup import (
    BackupsView,
    BackupView,
    CollectPlan,
    ListBackups,
    NoteCollected,
    PlanCollect,
    TakeBackup,
)
from broker.wire.base import Body
from broker.wire.control import Ack, Fault
from broker.wire.enrollment import (
    CreateInvite,
    CRLInstalled,
    EnrollmentView,
    FinishTOTPRotation,
    GetEnrollment,
    GetMesh,
    GetTrust,
    InstallCRL,
    InvitesView,
    InviteView,
    Join,
    JoinAnswer,
    ListInvites,
    MeshAnswer,
    PollTicket,
    RevokeInvite,
    SetEnrollment,
    StartTOTPRotation,
    TOTPRotationView,
    TrustAnswer,
)
from broker.wire.events import (
    AuthorityMoved,
    BundleMoved,
    CertificateMoved,
    RoleMoved,
    RosterMoved,
    SyncWanted,
    WorkAvailable,
)
from broker.wire.failover import (
    FailoverPlan,
    Hello,
    HelloAnswer,
    ListPeers,
    PeersView,
    PlanFailover,
    ReportSightings,
)
from broker.wire.ids import Count, RequestId
from broker.wire.liveness import Beat, BeatAnswer, Goodbye, Ready, Welcome
from broker.wire.node import GetNode, GetStatus, ListWorkers, NodeView, StatusView, WorkersView
from broker.wire.notice import ListNotices, NoticesView, SendTestNotice
from broker.wire.policy import GetPolicy, PolicyView, SetPolicy
from broker.wire.remote import (
    BindWorker,
    EnrollWorker,
    ListRemoteWorkers,
    RemoteWorkersView,
    RemoteWorkerView,
    RevokeWorker,
    WorkerDoor,
)
from broker.wire.renewal import (
    ForceRenewal,
    InstallAnswer,
    NoteOwnCertificate,
    RekeyAnswer,
    RenewalAnswer,
    RenewAsPeer,
    RenewExpired,
    RenewWithLease,
    ReportInstalled,
    StartInstall,
    StartRekey,
)
from broker.wire.replica import (
    AcceptKey,
    AdoptAnswer,
    AdoptRows,
    InstallKey,
    InstallPage,
    JournalAnswer,
    KeyPackage,
    NoteAdopted,
    PageInstalled,
    PlanSync,
    ReadJournal,
    ReportReady,
    SyncPlan,
)
from broker.wire.rollover import (
    AbortRollover,
    FinishRollover,
    GetRollover,
    RolloverView,
    StartRollover,
)
from broker.wire.roster import (
    BundleAnswer,
    BundleInstalled,
    GetBundle,
    GetMember,
    GetReach,
    HeartbeatAnswer,
    HeartbeatPlan,
    InstallBundle,
    LeaveMesh,
    ListMembers,
    MembersView,
    MemberView,
    NoteHeartbeat,
    PrepareHeartbeat,
    RecordHeartbeat,
    ReinstateMember,
    RenameMember,
    RevocationAnswer,
    RevokeMember,
    WhoAmI,
    WhoAmIAnswer,
)
from broker.wire.slot import (
    AddSlot,
    GiveHalf,
    HalfAnswer,
    KeepHalf,
    NoteHalf,
    PlanUnlock,
    RemoveSlot,
    SlotAnswer,
    UnlockByCode,
    UnlockPlan,
)
from broker.wire.standby import (
    CloseReview,
    ListReviews,
    ListStandbys,
    NominateStandby,
    PromoteHere,
    PromotionAnswer,
    RemoveStandby,
    ReviewsView,
    StandbysView,
    StepDown,
    StepDownAnswer,
    SyncNow,
)
from broker.wire.supervision import OverdueView, ReportProcesses
from broker.wire.token import (
    CheckToken,
    CreateToken,
    ListTokens,
    RevokeToken,
    TokensView,
    TokenView,
)
from broker.wire.work import CompleteWork, ExtendLease, LeaseWork, ReleaseLease, WorkAnswer

LivenessRequest = Ready | Beat | Goodbye
LivenessReply = Welcome | BeatAnswer

AnyRequest = (
    LivenessRequest
    | GetNode
    | GetStatus
    | ListWorkers
    | GetAuthority
    | UnlockAuthority
    | LockAuthority
    | CreateInvite
    | ListInvites
    | RevokeInvite
    | SetEnrollment
    | GetEnrollment
    | Join
    | PollTicket
    | GetMesh
    | GetTrust
    | ListApprovals
    | GetApproval
    | DecideApproval
    | ListMembers
    | GetMember
    | RevokeMember
    | GetBundle
    | InstallBundle
    | RecordHeartbeat
    | PrepareHeartbeat
    | NoteHeartbeat
    | WhoAmI
    | RenewWithLease
    | RenewAsPeer
    | ReportInstalled
    | NoteOwnCertificate
    | ForceRenewal
    | StartRekey
    | StartInstall
    | LeaseWork
    | ExtendLease
    | CompleteWork
    | ReleaseLease
    | PlanFailover
    | Hello
    | ReportSightings
    | ListPeers
    | ListAudit
    | VerifyAudit
    | ReportProcesses
    | ReadJournal
    | PlanSync
    | InstallPage
    | AdoptRows
    | NoteAdopted
    | AcceptKey
    | InstallKey
    | ReportReady
    | ListStandbys
    | NominateStandby
    | RemoveStandby
    | PromoteHere
    | StepDown
    | SyncNow
    | ListReviews
    | CloseReview
    | GetPolicy
    | SetPolicy
    | StartTOTPRotation
    | FinishTOTPRotation
    | ReinstateMember
    | RenameMember
    | LeaveMesh
    | AddSlot
    | RemoveSlot
    | UnlockByCode
    | PlanUnlock
    | NoteHalf
    | KeepHalf
    | GiveHalf
    | TakeBackup
    | ListBackups
    | PlanCollect
    | NoteCollected
    | StartRollover
    | GetRollover
    | FinishRollover
    | AbortRollover
    | CreateToken
    | ListTokens
    | RevokeToken
    | CheckToken
    | GetCompliance
    | GetReach
    | InstallCRL
    | RenewExpired
    | ListNotices
    | SendTestNotice
    | EnrollWorker
    | RevokeWorker
    | ListRemoteWorkers
    | BindWorker
)

AnyReply = (
    LivenessReply
    | Ack
    | Fault
    | NodeView
    | StatusView
    | WorkersView
    | AuthorityView
    | InviteView
    | InvitesView
    | EnrollmentView
    | JoinAnswer
    | MeshAnswer
    | TrustAnswer
    | ApprovalView
    | ApprovalsView
    | MembersView
    | MemberView
    | RevocationAnswer
    | BundleAnswer
    | BundleInstalled
    | HeartbeatAnswer
    | HeartbeatPlan
    | WhoAmIAnswer
    | RenewalAnswer
    | RekeyAnswer
    | InstallAnswer
    | WorkAnswer
    | FailoverPlan
    | HelloAnswer
    | PeersView
    | AuditView
    | AuditVerdict
    | OverdueView
    | JournalAnswer
    | SyncPlan
    | PageInstalled
    | AdoptAnswer
    | KeyPackage
    | StandbysView
    | PromotionAnswer
    | StepDownAnswer
    | ReviewsView
    | PolicyView
    | TOTPRotationView
    | SlotAnswer
    | UnlockPlan
    | HalfAnswer
    | BackupView
    | BackupsView
    | CollectPlan
    | RolloverView
    | TokenView
    | TokensView
    | ComplianceView
    | CRLInstalled
    | NoticesView
    | RemoteWorkerView
    | RemoteWorkersView
    | WorkerDoor
)

AnyEvent = (
    RosterMoved
    | BundleMoved
    | WorkAvailable
    | AuthorityMoved
    | RoleMoved
    | CertificateMoved
    | SyncWanted
)


class Call(Body, frozen=True):
    """A request on its way: the id makes retries idempotent, `ttl_ms` is the caller's patience."""

    request_id: RequestId
    ttl_ms: Count
    request: AnyRequest


class Answer(Body, frozen=True):
    """A reply on its way back."""

    request_id: RequestId
    reply: AnyReply
