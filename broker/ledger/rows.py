"""What the ledger answers with: plain frozen rows, times in whole seconds of wall time."""

from dataclasses import dataclass
from typing import Literal

from broker.units import UnixSeconds
from broker.wire.ids import Role, ServedState
from broker.wire.node import Endpoint

MemberState = Literal["active", "revoked"]
CertificateState = Literal["active", "superseded", "revoked"]
InviteState = Literal["open", "used", "revoked"]
ApprovalState = Literal["pending", "approved", "denied", "expired", "issued"]


@dataclass(frozen=True, slots=True)
class MeshRow:
    """The one mesh of this ledger."""

    mesh_id: str
    name: str
    domain: str
    pin: str
    enrollment_open: bool
    approval: bool
    names: tuple[str, ...]
    networks: tuple[str, ...]
    created_at: UnixSeconds


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One enrollment; `current_serial` is empty before the first certificate."""

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
