"""Which verb answers which request, and which requests may write."""

from collections.abc import Callable
from typing import Any

from broker.shell.batch import Batch
from broker.shell.caller import Caller, Deferred
from broker.shell.state import BrokerState
from broker.shell.verbs import (
    approvals,
    audit,
    authority,
    backups,
    bundle,
    codes,
    compliance,
    continuity,
    expired,
    failover,
    halves,
    heartbeat,
    invites,
    joining,
    leading,
    liveness,
    members,
    membership,
    node,
    notices,
    policy,
    remote,
    renewal,
    replica,
    rollover,
    slots,
    standby,
    supervision,
    tokens,
    totp,
    transfer,
    work,
)
from broker.wire import approval as w_approval
from broker.wire import audit as w_audit
from broker.wire import authority as w_authority
from broker.wire import backup as w_backup
from broker.wire import enrollment as w_enrollment
from broker.wire import failover as w_failover
from broker.wire import liveness as w_liveness
from broker.wire import node as w_node
from broker.wire import notice as w_notice
from broker.wire import policy as w_policy
from broker.wire import remote as w_remote
from broker.wire import renewal as w_renewal
from broker.wire import replica as w_replica
from broker.wire import rollover as w_rollover
from broker.wire import roster as w_roster
from broker.wire import slot as w_slot
from broker.wire import standby as w_standby
from broker.wire import supervision as w_supervision
from broker.wire import token as w_token
from broker.wire import work as w_work
from broker.wire.base import Request
from broker.wire.messages import AnyReply

Verb = Callable[[BrokerState, Batch, Caller, Any], AnyReply | Deferred]

VERBS: dict[type[Request], Verb] = {
    w_liveness.Ready: liveness.ready,
    w_liveness.Beat: liveness.beat,
    w_liveness.Goodbye: liveness.goodbye,
    w_node.GetNode: node.get_node,
    w_node.GetStatus: node.get_status,
    w_node.ListWorkers: node.list_workers,
    w_authority.GetAuthority: authority.get_authority,
    w_authority.UnlockAuthority: authority.unlock_authority,
    w_authority.LockAuthority: authority.lock_authority,
    w_slot.AddSlot: slots.add_slot,
    w_slot.RemoveSlot: slots.remove_slot_here,
    w_slot.UnlockByCode: codes.unlock_by_code,
    w_slot.PlanUnlock: halves.plan_unlock,
    w_slot.NoteHalf: halves.note_half,
    w_slot.KeepHalf: halves.keep_half,
    w_slot.GiveHalf: halves.give_half,
    w_enrollment.CreateInvite: invites.create_invite,
    w_enrollment.ListInvites: invites.list_invites,
    w_enrollment.RevokeInvite: invites.revoke_invite,
    w_enrollment.GetEnrollment: invites.get_enrollment,
    w_enrollment.SetEnrollment: invites.set_enrollment,
    w_enrollment.StartTOTPRotation: totp.start_totp_rotation,
    w_enrollment.FinishTOTPRotation: totp.finish_totp_rotation,
    w_policy.GetPolicy: policy.get_policy,
    w_policy.SetPolicy: policy.set_policy,
    w_enrollment.Join: joining.join,
    w_enrollment.PollTicket: joining.poll_ticket,
    w_enrollment.GetMesh: bundle.get_mesh,
    w_enrollment.GetTrust: bundle.get_trust,
    w_enrollment.InstallCRL: bundle.install_crl,
    w_approval.ListApprovals: approvals.list_approvals,
    w_approval.GetApproval: approvals.get_approval,
    w_approval.DecideApproval: approvals.decide_approval,
    w_roster.ListMembers: members.list_members,
    w_roster.GetMember: members.get_member,
    w_roster.RevokeMember: members.revoke_member,
    w_roster.ReinstateMember: membership.reinstate_member,
    w_roster.RenameMember: membership.rename_member,
    w_roster.LeaveMesh: membership.leave_mesh,
    w_roster.GetReach: members.get_reach,
    w_roster.GetBundle: bundle.get_bundle,
    w_roster.InstallBundle: bundle.install_bundle,
    w_roster.RecordHeartbeat: heartbeat.record_heartbeat,
    w_roster.PrepareHeartbeat: heartbeat.prepare_heartbeat,
    w_roster.NoteHeartbeat: heartbeat.note_heartbeat,
    w_roster.WhoAmI: heartbeat.who_am_i,
    w_renewal.RenewWithLease: renewal.renew_with_lease,
    w_renewal.RenewAsPeer: renewal.renew_as_peer,
    w_renewal.RenewExpired: expired.renew_expired,
    w_renewal.ReportInstalled: renewal.report_installed,
    w_renewal.NoteOwnCertificate: renewal.note_own_certificate,
    w_renewal.ForceRenewal: renewal.force_renewal,
    w_renewal.StartRekey: renewal.start_rekey,
    w_renewal.StartInstall: renewal.start_install,
    w_notice.ListNotices: notices.list_notices,
    w_notice.SendTestNotice: notices.send_test_notice,
    w_work.LeaseWork: work.lease_work,
    w_work.ExtendLease: work.extend_lease,
    w_work.CompleteWork: work.complete_work,
    w_work.ReleaseLease: work.release_lease,
    w_failover.PlanFailover: failover.plan_failover,
    w_failover.Hello: failover.hello,
    w_failover.ReportSightings: failover.report_sightings,
    w_failover.ListPeers: failover.list_peers,
    w_replica.ReadJournal: replica.read_journal,
    w_replica.PlanSync: replica.plan_sync,
    w_replica.InstallPage: replica.install_page,
    w_replica.AdoptRows: replica.adopt_rows,
    w_replica.NoteAdopted: replica.note_adopted,
    w_replica.AcceptKey: transfer.accept_key,
    w_replica.InstallKey: transfer.install_key,
    w_replica.ReportReady: standby.report_ready,
    w_standby.ListStandbys: continuity.list_standbys,
    w_standby.NominateStandby: standby.nominate_standby,
    w_standby.RemoveStandby: standby.remove_standby,
    w_standby.PromoteHere: leading.promote_here,
    w_standby.StepDown: leading.step_down,
    w_standby.SyncNow: standby.sync_now,
    w_standby.ListReviews: continuity.list_reviews,
    w_standby.CloseReview: continuity.close_review,
    w_audit.ListAudit: audit.list_audit,
    w_audit.VerifyAudit: audit.verify_audit,
    w_audit.GetCompliance: compliance.get_compliance,
    w_supervision.ReportProcesses: supervision.report_processes,
    w_backup.TakeBackup: backups.take_backup,
    w_backup.ListBackups: backups.list_backups,
    w_backup.PlanCollect: backups.plan_collect,
    w_backup.NoteCollected: backups.note_collected,
    w_rollover.StartRollover: rollover.start_rollover,
    w_rollover.GetRollover: rollover.get_rollover,
    w_rollover.FinishRollover: rollover.finish_rollover,
    w_rollover.AbortRollover: rollover.abort_rollover,
    w_token.CreateToken: tokens.create_token,
    w_token.ListTokens: tokens.list_tokens,
    w_token.RevokeToken: tokens.revoke_token,
    w_token.CheckToken: tokens.check_token,
    w_remote.EnrollWorker: remote.enroll_worker,
    w_remote.RevokeWorker: remote.revoke_worker,
    w_remote.ListRemoteWorkers: remote.list_remote_workers,
    w_remote.BindWorker: remote.bind_worker,
}

REMEMBERED: frozenset[type[Request]] = frozenset(
    {
        w_authority.LockAuthority,
        w_slot.RemoveSlot,
        w_backup.TakeBackup,
        w_enrollment.CreateInvite,
        w_enrollment.RevokeInvite,
        w_enrollment.SetEnrollment,
        w_enrollment.FinishTOTPRotation,
        w_policy.SetPolicy,
        w_enrollment.Join,
        w_enrollment.PollTicket,
        w_approval.DecideApproval,
        w_roster.RevokeMember,
        w_roster.ReinstateMember,
        w_roster.RenameMember,
        w_roster.LeaveMesh,
        w_renewal.RenewWithLease,
        w_renewal.RenewAsPeer,
        w_renewal.RenewExpired,
        w_renewal.ReportInstalled,
        w_work.CompleteWork,
        w_notice.SendTestNotice,
        w_replica.AdoptRows,
        w_replica.ReportReady,
        w_standby.NominateStandby,
        w_standby.RemoveStandby,
        w_standby.PromoteHere,
        w_standby.StepDown,
        w_standby.CloseReview,
        w_rollover.StartRollover,
        w_rollover.FinishRollover,
        w_rollover.AbortRollover,
        w_token.CreateToken,
        w_token.RevokeToken,
        w_remote.EnrollWorker,
        w_remote.RevokeWorker,
        w_remote.BindWorker,
    }
)
"""Requests whose repetition must have one effect; their replies are committed with the facts."""

ALWAYS_REMEMBERED: frozenset[type[Request]] = frozenset({w_work.CompleteWork})
"""Remembered also when no fact was written: their effect may be in memory alone."""
