"""What the ledger answers with: plain frozen rows, times in whole seconds of wall time."""

from dataclasses import dataclass, field
from typing import Literal

from broker.units import UnixSeconds
from broker.wire.ids import Role, ServedState
from broker.wire.node import Endpoint
from broker.wire.policy import Policy

MemberState = Literal["active", "revoked"]
CertificateState = Literal["active", "superseded", "revoked"]
InviteState = Literal["open", "used", "revoked"]
RolloverPhase = Literal["trusting", "switched", "retired", "aborted"]
ApprovalState = Literal["pending", "approved", "denied", "expired", "issued"]


@dataclass(frozen=True, slots=True)
class MeshRow:
    """The one mesh of this ledger.

    `totp_box` is nonce and ciphertext of the newest enrollment secret, empty while the first one
    counts, which lies beside the CA's keys. `recovery_key` is the public key (hex, X25519) that
    backups are sealed to.
    """

    mesh_id: str
    name: str
    domain: str
    pin: str
    enrollment_open: bool
    policy: Policy
    created_at: UnixSeconds
    totp_box: tuple[bytes, bytes] = (b"", b"")
    recovery_key: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """Patterns of permitted names."""
        return self.policy.names

    @property
    def networks(self) -> tuple[str, ...]:
        """Permitted networks."""
        return self.policy.networks

    @property
    def approval(self) -> bool:
        """Whether a person decides about joins by code."""
        return self.policy.approval


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One enrollment; `current_serial` is empty before the first certificate.

    `served_at` is when it last said something new of what it serves, `serving_until` when that
    certificate ends: of the one it really serves, which may be older than the current one.
    """

    member_id: str
    host: str
    state: MemberState
    role: Role
    sans: tuple[str, ...]
    endpoint: Endpoint
    joined_at: UnixSeconds
    method: str
    current_serial: str
    revoked_at: UnixSeconds | None
    served: ServedState
    served_serial: str
    served_detail: str
    last_error: str
    nominated: bool = False
    """Offered the issuing key, which it does not hold yet; its role is still `member`."""
    served_at: UnixSeconds | None = None
    serving_until: UnixSeconds | None = None


@dataclass(frozen=True, slots=True)
class BarRow:
    """A name that was revoked together with the member that had it last."""

    member_id: str
    at: UnixSeconds
    reason: str


@dataclass(frozen=True, slots=True)
class CertificateRow:
    """One certificate ever issued; `certificate` is DER, `fingerprint` its SHA-256 in hex."""

    serial: str
    member_id: str
    host: str
    key_hash: str
    not_before: UnixSeconds
    not_after: UnixSeconds
    renew_at: UnixSeconds
    state: CertificateState
    certificate: bytes
    fingerprint: str


@dataclass(frozen=True, slots=True)
class InviteRow:
    """One invite; expiry is the reader's question, so there is no state for it.

    `term` is the one it was minted in, on whichever side of a fork.
    """

    invite_id: str
    host: str
    sans: tuple[str, ...]
    expires_at: UnixSeconds
    state: InviteState
    member_id: str
    key_hash: str
    created_at: UnixSeconds
    term: int = 0
    rejoin: bool = False


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """A join that needs or needed a person; `member_id` is set once it is issued."""

    approval_id: str
    host: str
    sans: tuple[str, ...]
    csr: bytes
    key_hash: str
    ticket_hash: str
    method: str
    source: str
    words: tuple[str, ...]
    addresses: tuple[str, ...]
    mesh_port: int
    enroll_port: int
    expires_at: UnixSeconds
    invite_id: str
    requested_at: UnixSeconds
    state: ApprovalState
    operator: str
    reason: str
    member_id: str
    replaces: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class TokenRow:
    """One API token; expiry is the reader's question, so there is no state for it."""

    token_id: str
    name: str
    scopes: tuple[str, ...]
    expires_at: UnixSeconds
    created_at: UnixSeconds
    created_by: str
    revoked: bool


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One grant to renewal workers on a member's machine; `public_key` is empty until bound.

    `over`: revoked, or its member is no active one any more.
    """

    grant_id: str
    member_id: str
    host: str
    public_key: str
    enrolled_at: UnixSeconds
    enrolled_by: str
    over: bool


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """A conflict that the merge rules decided; `open` until a person has looked at it."""

    review_id: str
    rule: str
    subject: str
    kept: str
    lost: str
    at: UnixSeconds
    sequence: int
    open: bool


@dataclass(frozen=True, slots=True)
class RolloverRow:
    """One CA made to replace another; `nonce` and `ciphertext` are its sealed issuing key.

    `sequence` is the row that announced it, `switched_sequence` the one since which it signs, 0
    before that.
    """

    pin: str
    phase: RolloverPhase
    root: bytes
    issuing: bytes
    retiring_pin: str
    retiring_root: bytes
    retiring_issuing: bytes
    nonce: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)
    root_crl: bytes
    started_at: UnixSeconds
    sequence: int
    switched_sequence: int


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One line of the journal; `payload` is the canonical encoding of the fact."""

    sequence: int
    term: int
    at: UnixSeconds
    node: str
    incarnation: str
    actor: str
    event: str
    payload: bytes
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """Where the journal stands; `term` is that of the newest row, `hash` is hex."""

    term: int
    sequence: int
    hash: str
