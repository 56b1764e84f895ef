"""The names of everything that is logged: `noun.past_verb`, one list for code, docs and tests.

The journal uses the same words for the facts it keeps. Add names at the end, never rename.
"""

from enum import StrEnum


class EventName(StrEnum):
    """Constant text of a log line; everything variable goes into fields."""

    PROCESS_STARTED = "process.started"
    PROCESS_READY = "process.ready"
    PROCESS_STOPPING = "process.stopping"
    CONFIG_LOADED = "config.loaded"
    CONFIG_REJECTED = "config.rejected"
    BROKER_STARTED = "broker.started"
    BROKER_RECOVERED = "broker.recovered"
    WORKER_REGISTERED = "worker.registered"
    WORKER_LOST = "worker.lost"
    WORKER_RESTARTED = "worker.restarted"
    SUPERVISOR_STATE_CHANGED = "supervisor.state_changed"
    MESH_CREATED = "mesh.created"
    MESH_DESTROYED = "mesh.destroyed"
    CA_UNLOCKED = "ca.unlocked"
    CA_UNLOCK_FAILED = "ca.unlock_failed"
    CA_LOCKED = "ca.locked"
    CA_ROLLOVER_STARTED = "ca.rollover_started"
    CA_ROLLOVER_FINISHED = "ca.rollover_finished"
    CA_ROLLOVER_ABORTED = "ca.rollover_aborted"
    CA_ROLLOVER_RETIRED = "ca.rollover_retired"
    TRUST_MOVED = "trust.moved"
    POLICY_CHANGED = "policy.changed"
    INVITE_CREATED = "invite.created"
    INVITE_USED = "invite.used"
    INVITE_EXPIRED = "invite.expired"
    INVITE_REVOKED = "invite.revoked"
    ENROLLMENT_OPENED = "enrollment.opened"
    ENROLLMENT_CLOSED = "enrollment.closed"
    TOTP_ROTATED = "totp.rotated"
    JOIN_REQUESTED = "join.requested"
    JOIN_REFUSED = "join.refused"
    APPROVAL_PENDING = "approval.pending"
    APPROVAL_GRANTED = "approval.granted"
    APPROVAL_DENIED = "approval.denied"
    APPROVAL_EXPIRED = "approval.expired"
    CERTIFICATE_ISSUED = "certificate.issued"
    CERTIFICATE_INSTALLED = "certificate.installed"
    CERTIFICATE_RENEWED = "certificate.renewed"
    CERTIFICATE_RENEWAL_FAILED = "certificate.renewal_failed"
    CERTIFICATE_RENEWAL_SKIPPED = "certificate.renewal_skipped"
    CERTIFICATE_EXPIRING = "certificate.expiring"
    CERTIFICATE_EXPIRED = "certificate.expired"
    CERTIFICATE_SERVED_MISMATCH = "certificate.served_mismatch"
    CERTIFICATE_ROLLED_BACK = "certificate.rolled_back"
    HOOK_STARTED = "hook.started"
    HOOK_SUCCEEDED = "hook.succeeded"
    HOOK_FAILED = "hook.failed"
    HOOK_TIMED_OUT = "hook.timed_out"
    HOOK_CUT_SHORT = "hook.cut_short"
    MEMBER_JOINED = "member.joined"
    MEMBER_SEEN = "member.seen"
    MEMBER_SUSPECTED = "member.suspected"
    MEMBER_LOST = "member.lost"
    MEMBER_REVOKED = "member.revoked"
    MEMBER_RENAMED = "member.renamed"
    MEMBER_REINSTATED = "member.reinstated"
    ROSTER_SYNCED = "roster.synced"
    ROSTER_REJECTED = "roster.rejected"
    BUNDLE_PUBLISHED = "bundle.published"
    CRL_PUBLISHED = "crl.published"
    STANDBY_NOMINATED = "standby.nominated"
    STANDBY_READY = "standby.ready"
    STANDBY_LAGGING = "standby.lagging"
    FAILOVER_STARTED = "failover.started"
    FAILOVER_VOTE_CAST = "failover.vote_cast"
    FAILOVER_PROMOTED = "failover.promoted"
    FAILOVER_DEMOTED = "failover.demoted"
    FAILOVER_FENCED = "failover.fenced"
    FAILOVER_WITHHELD = "failover.withheld"
    PRIMARY_ANNOUNCED = "primary.announced"
    PRIMARY_WITHDRAWN = "primary.withdrawn"
    PEER_DISCOVERED = "peer.discovered"
    PEER_UNREACHABLE = "peer.unreachable"
    CLOCK_SKEW_DETECTED = "clock.skew_detected"
    CLOCK_JUMPED = "clock.jumped"
    LISTENER_OPENED = "listener.opened"
    LISTENER_RELOADED = "listener.reloaded"
    TLS_HANDSHAKE_FAILED = "tls.handshake_failed"
    AUTH_FAILED = "auth.failed"
    AUTH_THROTTLED = "auth.throttled"
    TOKEN_CREATED = "token.created"  # noqa: S105 (a name, not a secret)
    TOKEN_REVOKED = "token.revoked"  # noqa: S105 (a name, not a secret)
    BACKUP_CREATED = "backup.created"
    BACKUP_VERIFIED = "backup.verified"
    BACKUP_FAILED = "backup.failed"
    BACKUP_RESTORED = "backup.restored"
    AUDIT_CHECKPOINTED = "audit.checkpointed"
    AUDIT_BROKEN = "audit.broken"
    TRUST_INSTALLED = "trust.installed"
    TRUST_REMOVED = "trust.removed"
    BROKER_AWAITED = "broker.awaited"
    BROKER_LOST = "broker.lost"
    PROCESS_CRASHED = "process.crashed"
    ROUND_FAILED = "round.failed"
    WORKER_KILLED = "worker.killed"
    LISTENER_DELAYED = "listener.delayed"
    HEARTBEAT_ANSWERED = "heartbeat.answered"
    HEARTBEAT_MISMATCHED = "heartbeat.mismatched"
    HEARTBEAT_FAILED = "heartbeat.failed"
    DISCOVERY_FAILED = "discovery.failed"
    DISCOVERY_RECOVERED = "discovery.recovered"
    DISCOVERY_DISABLED = "discovery.disabled"
    APPROVAL_DEFERRED = "approval.deferred"
    APPROVAL_RELEASED = "approval.released"
    DECIDER_CRASHED = "decider.crashed"
    PEER_REACHED = "peer.reached"
    STORAGE_FAILED = "storage.failed"
    LEDGER_MENDED = "ledger.mended"
    FRAME_REFUSED = "frame.refused"
    STANDBY_REMOVED = "standby.removed"
    STANDBY_KEY_RECEIVED = "standby.key_received"
    FAILOVER_SUSPECTED = "failover.suspected"
    FAILOVER_CALMED = "failover.calmed"
    FAILOVER_PENDING = "failover.pending"
    FAILOVER_SETTLED = "failover.settled"
    FAILOVER_CONFIRMED = "failover.confirmed"
    ROSTER_FORKED = "roster.forked"
    MERGE_ADOPTED = "merge.adopted"
    MERGE_CONFLICT = "merge.conflict"
    CLAIM_REJECTED = "claim.rejected"
    CA_SLOT_ADDED = "ca.slot_added"
    CA_SLOT_REMOVED = "ca.slot_removed"
    CA_HALF_KEPT = "ca.half_kept"
    CA_HALF_GIVEN = "ca.half_given"
    CERTIFICATE_REDELIVERED = "certificate.redelivered"
    RENEWAL_RECOVERED = "renewal.recovered"
    NOTICE_SENT = "notice.sent"
    NOTICE_FAILED = "notice.failed"
    NOTICE_DROPPED = "notice.dropped"
    WORKER_ENROLLED = "worker.enrolled"
    WORKER_BOUND = "worker.bound"
    WORKER_REVOKED = "worker.revoked"
    WORKER_REFUSED = "worker.refused"


ERRORS = frozenset(
    {
        EventName.AUDIT_BROKEN,
        EventName.PROCESS_CRASHED,
        EventName.CERTIFICATE_EXPIRED,
        EventName.STORAGE_FAILED,
        EventName.LEDGER_MENDED,
    }
)
"""Somebody must act."""

WARNINGS = frozenset(
    {
        EventName.APPROVAL_EXPIRED,
        EventName.AUTH_FAILED,
        EventName.AUTH_THROTTLED,
        EventName.BROKER_AWAITED,
        EventName.BROKER_LOST,
        EventName.CA_UNLOCK_FAILED,
        EventName.CERTIFICATE_EXPIRING,
        EventName.CERTIFICATE_RENEWAL_FAILED,
        EventName.CERTIFICATE_ROLLED_BACK,
        EventName.CERTIFICATE_SERVED_MISMATCH,
        EventName.CLOCK_JUMPED,
        EventName.CLOCK_SKEW_DETECTED,
        EventName.CONFIG_REJECTED,
        EventName.FAILOVER_FENCED,
        EventName.FAILOVER_WITHHELD,
        EventName.HOOK_FAILED,
        EventName.HOOK_TIMED_OUT,
        EventName.HOOK_CUT_SHORT,
        EventName.JOIN_REFUSED,
        EventName.LISTENER_DELAYED,
        EventName.MEMBER_LOST,
        EventName.MEMBER_SUSPECTED,
        EventName.NOTICE_DROPPED,
        EventName.NOTICE_FAILED,
        EventName.PEER_UNREACHABLE,
        EventName.ROSTER_REJECTED,
        EventName.ROUND_FAILED,
        EventName.STANDBY_LAGGING,
        EventName.TLS_HANDSHAKE_FAILED,
        EventName.WORKER_KILLED,
        EventName.WORKER_LOST,
        EventName.WORKER_REFUSED,
    }
)
"""Worth a look; the system goes on by itself."""
