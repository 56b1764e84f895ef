"""Which service may send which request. What is not listed is forbidden.

The command has no row: it speaks to the console, and the console speaks for the person whose
uid the kernel vouched for.
"""

from broker.wire.approval import DecideApproval, GetApproval, ListApprovals
from broker.wire.audit import GetCompliance, ListAudit, VerifyAudit
from broker.wire.authority import GetAuthority, LockAuthority, UnlockAuthority
from broker.wire.backup import ListBackups, NoteCollected, PlanCollect, TakeBackup
from broker.wire.base import Request
from broker.wire.enrollment import (
    CreateInvite,
    FinishTOTPRotation,
    GetEnrollment,
    GetMesh,
    GetTrust,
    InstallCRL,
    Join,
    ListInvites,
    PollTicket,
    RevokeInvite,
    SetEnrollment,
    StartTOTPRotation,
)
from broker.wire.failover import Hello, ListPeers, PlanFailover, ReportSightings
from broker.wire.ids import Service
from broker.wire.liveness import Beat, Goodbye, Ready
from broker.wire.node import GetNode, GetStatus, ListWorkers
from broker.wire.notice import ListNotices, SendTestNotice
from broker.wire.policy import GetPolicy, SetPolicy
from broker.wire.remote import BindWorker, EnrollWorker, ListRemoteWorkers, RevokeWorker
from broker.wire.renewal import (
    ForceRenewal,
    NoteOwnCertificate,
    RenewAsPeer,
    RenewExpired,
    RenewWithLease,
    ReportInstalled,
    StartInstall,
    StartRekey,
)
from broker.wire.replica import (
    AcceptKey,
    AdoptRows,
    InstallKey,
    InstallPage,
    NoteAdopted,
    PlanSync,
    ReadJournal,
    ReportReady,
)
from broker.wire.rollover import AbortRollover, FinishRollover, GetRollover, StartRollover
from broker.wire.roster import (
    GetBundle,
    GetMember,
    GetReach,
    InstallBundle,
    LeaveMesh,
    ListMembers,
    NoteHeartbeat,
    PrepareHeartbeat,
    RecordHeartbeat,
    ReinstateMember,
    RenameMember,
    RevokeMember,
    WhoAmI,
)
from broker.wire.slot import (
    AddSlot,
    GiveHalf,
    KeepHalf,
    NoteHalf,
    PlanUnlock,
    RemoveSlot,
    UnlockByCode,
)
from broker.wire.standby import (
    CloseReview,
    ListReviews,
    ListStandbys,
    NominateStandby,
    PromoteHere,
    RemoveStandby,
    StepDown,
    SyncNow,
)
from broker.wire.supervision import ReportProcesses
from broker.wire.token import CheckToken, CreateToken, ListTokens, RevokeToken
from broker.wire.work import CompleteWork, ExtendLease, LeaseWork, ReleaseLease

EVERYONE: frozenset[type[Request]] = frozenset({Ready, Beat, Goodbye, GetNode})
LEASING: frozenset[type[Request]] = frozenset({LeaseWork, ExtendLease, CompleteWork, ReleaseLease})

CAPABILITIES: dict[Service, frozenset[type[Request]]] = {
    Service.APPROVAL: EVERYONE | LEASING | {ListApprovals},
    Service.CONSOLE: EVERYONE
    | {
        GetStatus,
        ListWorkers,
        GetAuthority,
        UnlockAuthority,
        LockAuthority,
        CreateInvite,
        ListInvites,
        RevokeInvite,
        GetEnrollment,
        SetEnrollment,
        ListApprovals,
        GetApproval,
        DecideApproval,
        ListMembers,
        GetMember,
        RevokeMember,
        ForceRenewal,
        ListPeers,
        ListAudit,
        VerifyAudit,
        ListStandbys,
        NominateStandby,
        RemoveStandby,
        PromoteHere,
        StepDown,
        SyncNow,
        ListReviews,
        CloseReview,
        GetPolicy,
        SetPolicy,
        StartTOTPRotation,
        FinishTOTPRotation,
        ReinstateMember,
        RenameMember,
        AddSlot,
        RemoveSlot,
        UnlockByCode,
        TakeBackup,
        ListBackups,
        StartRollover,
        GetRollover,
        FinishRollover,
        AbortRollover,
        CreateToken,
        ListTokens,
        RevokeToken,
        CheckToken,
        GetCompliance,
        GetTrust,
        GetReach,
        ListNotices,
        SendTestNotice,
        EnrollWorker,
        RevokeWorker,
        ListRemoteWorkers,
    },
    Service.FAILOVER: EVERYONE | {PlanFailover, ReportSightings},
    Service.GATEWAY: EVERYONE
    | {
        Join,
        PollTicket,
        GetMesh,
        GetTrust,
        GetBundle,
        RecordHeartbeat,
        Hello,
        WhoAmI,
        RenewAsPeer,
        ReportInstalled,
        StartRekey,
        StartInstall,
        ReadJournal,
        AdoptRows,
        AcceptKey,
        ReportReady,
        LeaveMesh,
        KeepHalf,
        GiveHalf,
        RenewExpired,
        BindWorker,
    },
    Service.HEARTBEAT: EVERYONE | {PrepareHeartbeat, NoteHeartbeat},
    Service.NOTIFY: EVERYONE | LEASING,
    Service.REMOTE_RENEWAL: EVERYONE | LEASING | {RenewWithLease},
    Service.RENEWAL: EVERYONE | LEASING | {RenewWithLease, NoteOwnCertificate},
    Service.ROSTER_SYNC: EVERYONE
    | {
        InstallBundle,
        PlanSync,
        InstallPage,
        InstallKey,
        NoteAdopted,
        PlanUnlock,
        NoteHalf,
        PlanCollect,
        NoteCollected,
        GetTrust,
        InstallCRL,
    },
    Service.WATCHDOG: EVERYONE | {ReportProcesses, StepDown},
}


def is_allowed(service: Service, request: Request) -> bool:
    """Whether `service` may send this request."""
    return type(request) in CAPABILITIES[service]
