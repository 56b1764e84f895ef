"""Trouble a caller was told to expect: one class per decision the caller makes.

`ErrorCode` values cross the wire and appear in HTTP problems; append, never rename or reuse.
"""

from enum import StrEnum
from typing import ClassVar


class ErrorCode(StrEnum):
    """Stable names of refusals."""

    MALFORMED = "malformed"
    OVERSIZED = "oversized"
    UNSUPPORTED_VERSION = "unsupported_version"
    UNKNOWN_KIND = "unknown_kind"
    FORBIDDEN = "forbidden"
    UNREGISTERED = "unregistered"
    UNAVAILABLE = "unavailable"
    BUSY = "busy"
    STORAGE = "storage"
    TIMEOUT = "timeout"
    NO_MESH = "no_mesh"
    MESH_EXISTS = "mesh_exists"
    NOT_PRIMARY = "not_primary"
    STALE_TERM = "stale_term"
    CA_LOCKED = "ca_locked"
    BAD_PASSPHRASE = "bad_passphrase"  # noqa: S105 (a code, not a secret)
    BAD_CREDENTIAL = "bad_credential"
    INVITE_EXPIRED = "invite_expired"
    INVITE_USED = "invite_used"
    ENROLLMENT_CLOSED = "enrollment_closed"
    NAME_NOT_ALLOWED = "name_not_allowed"
    ALREADY_ENROLLED = "already_enrolled"
    CSR_REJECTED = "csr_rejected"
    APPROVAL_DENIED = "approval_denied"
    APPROVAL_EXPIRED = "approval_expired"
    THROTTLED = "throttled"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    REVOKED = "revoked"
    NOT_A_MEMBER = "not_a_member"
    LEASE_LOST = "lease_lost"
    RENEWAL_NOT_DUE = "renewal_not_due"
    RENEWAL_IN_PROGRESS = "renewal_in_progress"
    BUNDLE_REJECTED = "bundle_rejected"
    LEDGER_DAMAGED = "ledger_damaged"
    SETTINGS = "settings"
    PIN_MISMATCH = "pin_mismatch"
    INVITE_MALFORMED = "invite_malformed"
    PEER_UNREACHABLE = "peer_unreachable"
    INTERNAL = "internal"
    WITHHELD = "withheld"
    FORKED = "forked"
    CLAIM_REJECTED = "claim_rejected"
    KEY_REJECTED = "key_rejected"
    BACKUP_REJECTED = "backup_rejected"
    POLICY_REFUSED = "policy_refused"
    CERTIFICATE_EXPIRED = "certificate_expired"
    CLOCK_SKEW = "clock_skew"


class MeshError(Exception):
    """Root of all expected trouble.

    Args:
        detail: What failed and why, one sentence, no secrets.
        hint: What to do about it; may be empty.
        retry_after_ms: Earliest useful retry; 0 when the caller may choose.
    """

    code: ClassVar[ErrorCode]
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, hint: str = "", retry_after_ms: int = 0) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.retry_after_ms = retry_after_ms


class MalformedMessageError(MeshError):
    """Bytes from a peer are not a message of this protocol."""

    code = ErrorCode.MALFORMED


class OversizedMessageError(MeshError):
    """A frame is larger than the protocol allows; it was not decoded."""

    code = ErrorCode.OVERSIZED


class UnsupportedVersionError(MeshError):
    """The peer speaks another major version of the wire protocol."""

    code = ErrorCode.UNSUPPORTED_VERSION


class UnknownKindError(MeshError):
    """A message kind this side does not know: the peer is newer or wrong."""

    code = ErrorCode.UNKNOWN_KIND


class ForbiddenError(MeshError):
    """The capability table does not let this service send this request."""

    code = ErrorCode.FORBIDDEN


class UnregisteredError(MeshError):
    """The sender must introduce itself with READY first."""

    code = ErrorCode.UNREGISTERED
    retryable = True


class UnavailableError(MeshError):
    """The broker or a needed worker does not answer now."""

    code = ErrorCode.UNAVAILABLE
    retryable = True


class BusyError(MeshError):
    """A bounded queue is full; ask again later."""

    code = ErrorCode.BUSY
    retryable = True


class StorageError(MeshError):
    """The ledger could not commit; nothing was acknowledged, nothing changed."""

    code = ErrorCode.STORAGE
    retryable = True


class DeadlineError(MeshError):
    """No answer within the deadline; the outcome is unknown, retry with the same id."""

    code = ErrorCode.TIMEOUT
    retryable = True


class NoMeshError(MeshError):
    """This node belongs to no mesh yet."""

    code = ErrorCode.NO_MESH


class MeshExistsError(MeshError):
    """This node already belongs to a mesh."""

    code = ErrorCode.MESH_EXISTS


class NotPrimaryError(MeshError):
    """Only the primary may do this; `hint` names it when known."""

    code = ErrorCode.NOT_PRIMARY


class StaleTermError(MeshError):
    """The sender acts for a primary that has since been replaced."""

    code = ErrorCode.STALE_TERM


class CALockedError(MeshError):
    """The issuing key is sealed; nothing can be signed until it is unlocked."""

    code = ErrorCode.CA_LOCKED


class BadPassphraseError(MeshError):
    """No slot opens with this passphrase."""

    code = ErrorCode.BAD_PASSPHRASE


class BadCredentialError(MeshError):
    """The invite secret or TOTP code does not prove a right to join."""

    code = ErrorCode.BAD_CREDENTIAL


class InviteExpiredError(MeshError):
    """The invite was valid, but its time is over."""

    code = ErrorCode.INVITE_EXPIRED


class InviteUsedError(MeshError):
    """The invite was redeemed before, or revoked."""

    code = ErrorCode.INVITE_USED


class EnrollmentClosedError(MeshError):
    """Nobody may ask to join right now."""

    code = ErrorCode.ENROLLMENT_CLOSED


class NameNotAllowedError(MeshError):
    """A host name or SAN is malformed or outside the policy."""

    code = ErrorCode.NAME_NOT_ALLOWED


class AlreadyEnrolledError(MeshError):
    """The host name belongs to an active member."""

    code = ErrorCode.ALREADY_ENROLLED


class CSRRejectedError(MeshError):
    """The certificate signing request is malformed, weak, or asks for too much."""

    code = ErrorCode.CSR_REJECTED


class ApprovalDeniedError(MeshError):
    """A person or the decider said no."""

    code = ErrorCode.APPROVAL_DENIED


class ApprovalExpiredError(MeshError):
    """Nobody answered in time."""

    code = ErrorCode.APPROVAL_EXPIRED


class ThrottledError(MeshError):
    """Too many attempts from this source."""

    code = ErrorCode.THROTTLED
    retryable = True


class NotFoundError(MeshError):
    """No such object."""

    code = ErrorCode.NOT_FOUND


class ConflictError(MeshError):
    """The object is not in a state that allows this."""

    code = ErrorCode.CONFLICT


class RevokedError(MeshError):
    """The certificate or its owner has been revoked."""

    code = ErrorCode.REVOKED


class NotAMemberError(MeshError):
    """The certificate is not one of this mesh's active members."""

    code = ErrorCode.NOT_A_MEMBER


class LeaseLostError(MeshError):
    """The lease ended or was given to another worker (stale fencing number)."""

    code = ErrorCode.LEASE_LOST


class RenewalNotDueError(MeshError):
    """The certificate is not due yet."""

    code = ErrorCode.RENEWAL_NOT_DUE


class RenewalInProgressError(MeshError):
    """Another worker holds the lease for this host."""

    code = ErrorCode.RENEWAL_IN_PROGRESS
    retryable = True


class BundleRejectedError(MeshError):
    """A signed bundle failed verification or would go back in time."""

    code = ErrorCode.BUNDLE_REJECTED


class BackupRejectedError(MeshError):
    """A backup file is damaged, was changed, or belongs to another mesh."""

    code = ErrorCode.BACKUP_REJECTED


class LedgerDamagedError(MeshError):
    """The ledger cannot be trusted; the broker refuses to run on it."""

    code = ErrorCode.LEDGER_DAMAGED


class SettingsError(MeshError):
    """A setting is unknown or has an impossible value."""

    code = ErrorCode.SETTINGS


class PinMismatchError(MeshError):
    """The CA that answered is not the one that was pinned."""

    code = ErrorCode.PIN_MISMATCH


class InviteMalformedError(MeshError):
    """The text is not an invite."""

    code = ErrorCode.INVITE_MALFORMED


class PeerUnreachableError(MeshError):
    """Another node did not answer, or not as itself."""

    code = ErrorCode.PEER_UNREACHABLE
    retryable = True


class WithheldError(MeshError):
    """This primary has not its full powers now: enrollment, policy and roles have to wait."""

    code = ErrorCode.WITHHELD


class ForkedError(MeshError):
    """Two journals share no row, or one row number has two contents that nobody can merge."""

    code = ErrorCode.FORKED


class ClaimRejectedError(MeshError):
    """A beat or a head that the issuing key of this mesh did not sign, or an older one."""

    code = ErrorCode.CLAIM_REJECTED


class KeyRejectedError(MeshError):
    """Received key material does not open, or does not fit the certificate and the pin."""

    code = ErrorCode.KEY_REJECTED


class PolicyRefusedError(MeshError):
    """A policy is impossible, or beyond what the issuing certificate permits."""

    code = ErrorCode.POLICY_REFUSED


class InternalError(MeshError):
    """A bug on the other side; its log has the traceback."""

    code = ErrorCode.INTERNAL


class CertificateExpiredError(MeshError):
    """The certificate is over, and so is the time in which its key could still renew it."""

    code = ErrorCode.CERTIFICATE_EXPIRED


class ClockSkewError(MeshError):
    """The clock of the machine that should sign is off by more than a day."""

    code = ErrorCode.CLOCK_SKEW
    retryable = True


def error_classes() -> dict[ErrorCode, type[MeshError]]:
    """Return the class for each code; a test asserts the table is complete.

    Only the classes of this module: a process may refine one for itself, the wire knows these.
    """
    return {cls.code: cls for cls in MeshError.__subclasses__() if cls.__module__ == __name__}
