"""Refusals on their way to an HTTP caller: status by code and the problem document. Sans-IO.

Whatever goes wrong behind a door becomes one `Problem` (RFC 9457); stack traces never do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from broker.errors import ErrorCode, InternalError, MeshError
from broker.wire.mesh_api import Problem
from broker.wire.node import Endpoint

PROBLEM_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:certmesh:problem:"
RETRY_AFTER_S_MAX = 3600

_STATUS: Mapping[ErrorCode, int] = MappingProxyType(
    {
        ErrorCode.MALFORMED: 400,
        ErrorCode.UNKNOWN_KIND: 400,
        ErrorCode.UNSUPPORTED_VERSION: 400,
        ErrorCode.CSR_REJECTED: 400,
        ErrorCode.INVITE_MALFORMED: 400,
        ErrorCode.BUNDLE_REJECTED: 400,
        ErrorCode.CLAIM_REJECTED: 400,
        ErrorCode.KEY_REJECTED: 400,
        ErrorCode.BACKUP_REJECTED: 400,
        ErrorCode.POLICY_REFUSED: 400,
        ErrorCode.BAD_CREDENTIAL: 401,
        ErrorCode.FORBIDDEN: 403,
        ErrorCode.BAD_PASSPHRASE: 403,
        ErrorCode.ENROLLMENT_CLOSED: 403,
        ErrorCode.NAME_NOT_ALLOWED: 403,
        ErrorCode.APPROVAL_DENIED: 403,
        ErrorCode.REVOKED: 403,
        ErrorCode.NOT_A_MEMBER: 403,
        ErrorCode.CERTIFICATE_EXPIRED: 403,
        ErrorCode.NOT_FOUND: 404,
        ErrorCode.MESH_EXISTS: 409,
        ErrorCode.ALREADY_ENROLLED: 409,
        ErrorCode.CONFLICT: 409,
        ErrorCode.RENEWAL_IN_PROGRESS: 409,
        ErrorCode.RENEWAL_NOT_DUE: 409,
        ErrorCode.LEASE_LOST: 409,
        ErrorCode.STALE_TERM: 409,
        ErrorCode.FORKED: 409,
        ErrorCode.INVITE_EXPIRED: 410,
        ErrorCode.INVITE_USED: 410,
        ErrorCode.APPROVAL_EXPIRED: 410,
        ErrorCode.OVERSIZED: 413,
        ErrorCode.THROTTLED: 429,
        ErrorCode.BUSY: 429,
        ErrorCode.INTERNAL: 500,
        ErrorCode.SETTINGS: 500,
        ErrorCode.PIN_MISMATCH: 502,
        ErrorCode.PEER_UNREACHABLE: 502,
        ErrorCode.UNAVAILABLE: 503,
        ErrorCode.CLOCK_SKEW: 503,
        ErrorCode.UNREGISTERED: 503,
        ErrorCode.NO_MESH: 503,
        ErrorCode.NOT_PRIMARY: 503,
        ErrorCode.CA_LOCKED: 503,
        ErrorCode.WITHHELD: 503,
        ErrorCode.LEDGER_DAMAGED: 503,
        ErrorCode.TIMEOUT: 504,
        ErrorCode.STORAGE: 507,
    }
)


@dataclass(slots=True)
class RefusedError(Exception):
    """A refusal that HTTP has a status of its own for, such as 405 or 408.

    `close` ends the connection after the answer: what is left of the request cannot be trusted
    to be a new one.
    """

    error: MeshError
    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    close: bool = False


def refusal_of(error: MeshError) -> RefusedError:
    """Return how HTTP says `error`."""
    status = status_of(error.code)
    headers = {}
    if error.retry_after_ms > 0 or status == status_of(ErrorCode.BUSY):
        headers["Retry-After"] = str(retry_after_s(error.retry_after_ms))
    if error.code is ErrorCode.BAD_CREDENTIAL:
        headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 11.6.1: a 401 names a scheme
    return RefusedError(error, status, headers)


def status_of(code: ErrorCode) -> int:
    """Return the HTTP status of a code."""
    return _STATUS[code]


def retry_after_s(retry_after_ms: int) -> int:
    """Return whole seconds for `Retry-After`, at least one: zero invites a busy loop."""
    return min(max(1, -(-retry_after_ms // 1000)), RETRY_AFTER_S_MAX)


def problem_of(refusal: RefusedError, request_id: str, primary: Endpoint | None = None) -> Problem:
    """Return the document a caller gets; `primary` says where to ask instead."""
    error = refusal.error
    return Problem(
        type=TYPE_PREFIX + error.code.value,
        title=error.code.value.replace("_", " "),
        status=refusal.status,
        code=error.code.value,
        detail=error.detail[:1024],
        hint=error.hint[:1024],
        request_id=request_id,
        primary=primary,
    )


def bug_refusal() -> RefusedError:
    """Return what a caller learns of our bug: that it is ours, and nothing else."""
    error = InternalError("this node failed to answer", hint="its log has the reason")
    return RefusedError(error, status_of(error.code), close=True)
