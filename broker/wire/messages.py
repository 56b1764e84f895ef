"""The unions: every request, reply, event, and the envelopes they travel in."""

from broker.wire.approval import (
    ApprovalsView,
    ApprovalView,
    DecideApproval,
    GetApproval,
    ListApprovals,
)
from broker.wire.audit import AuditVerdict, AuditView, ListAudit, VerifyAudit
from broker.wire.authority import AuthorityView, GetAuthority, LockAuthority, UnlockAuthority
from broker.wire.base import Body
from broker.wire.control import Ack, Fault
from broker.wire.enrollment import (
    CreateInvite,
    EnrollmentView,
    GetEnrollment,
    GetMesh,
    GetTrust,
    InvitesView,
    InviteView,
    Join,
    JoinAnswer,
    ListInvites,
    MeshAnswer,
    PollTicket,
    RevokeInvite,
    SetEnrollment,
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
from broker.wire.renewal import (
    ForceRenewal,
    InstallAnswer,
    NoteOwnCertificate,
    RekeyAnswer,
    RenewalAnswer,
    RenewAsPeer,
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
from broker.wire.roster import (
    BundleAnswer,
    BundleInstalled,
    GetBundle,
    GetMember,
    HeartbeatAnswer,
    HeartbeatPlan,
    InstallBundle,
    ListMembers,
    MembersView,
    MemberView,
    NoteHeartbeat,
    PrepareHeartbeat,
    RecordHeartbeat,
    RevocationAnswer,
    RevokeMember,
    WhoAmI,
    WhoAmIAnswer,
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
