"""Facts of the door: who may ask, with what, and what was said."""

from broker.wire.base import Fact
from broker.wire.ids import (
    DER,
    Count,
    Hex,
    Host,
    Port,
    Text,
    UnixSeconds,
)
from broker.wire.policy import Policy


class EnrollmentOpened(Fact, frozen=True, tag="enrollment.opened"):
    """TOTP joins are welcome."""


class EnrollmentClosed(Fact, frozen=True, tag="enrollment.closed"):
    """TOTP joins are refused."""


class InviteCreated(Fact, frozen=True, tag="invite.created"):
    """A single-use, host-bound permission; `invite_id` is the SHA-256 of its secret."""

    invite_id: Hex
    host: Host
    sans: tuple[Text, ...]
    expires_at: UnixSeconds
    rejoin: bool = False


class InviteUsed(Fact, frozen=True, tag="invite.used"):
    """The invite belongs to this member and key for ever."""

    invite_id: Hex
    member_id: Hex
    key_hash: Hex


class InviteRevoked(Fact, frozen=True, tag="invite.revoked"):
    """The invite is worthless."""

    invite_id: Hex


class TOTPStepUsed(Fact, frozen=True, tag="totp.step_used"):
    """A TOTP step was accepted once and never again; `key_hash` names who spent it."""

    step: Count
    key_hash: Hex = ""


class TOTPRotated(Fact, frozen=True, tag="totp.rotated"):
    """A new enrollment secret, sealed under the wrapping key that all key holders share."""

    nonce: bytes
    ciphertext: bytes


class PolicyChanged(Fact, frozen=True, tag="policy.changed"):
    """The whole policy from now on; `changed` names the fields that differ."""

    policy: Policy
    changed: tuple[Text, ...]


class JoinRefused(Fact, frozen=True, tag="join.refused"):
    """A join was turned away; `host` is what the caller claimed, already shape-checked."""

    host: Text
    source: Text
    code: Text


class ApprovalRequested(Fact, frozen=True, tag="approval.pending"):
    """A join with a good credential waits for a person."""

    approval_id: Hex
    host: Host
    sans: tuple[Text, ...]
    csr: DER
    key_hash: Hex
    ticket_hash: Hex
    method: Text
    source: Text
    words: tuple[Text, ...]
    addresses: tuple[Text, ...]
    mesh_port: Port
    enroll_port: Port
    expires_at: UnixSeconds
    invite_id: Hex = ""
    replaces: Hex = ""
    note: Text = ""


class ApprovalGranted(Fact, frozen=True, tag="approval.granted"):
    """A person said yes."""

    approval_id: Hex
    operator: Text
    reason: Text = ""


class ApprovalDenied(Fact, frozen=True, tag="approval.denied"):
    """A person or the decider said no."""

    approval_id: Hex
    operator: Text
    reason: Text


class ApprovalExpired(Fact, frozen=True, tag="approval.expired"):
    """Nobody said anything in time."""

    approval_id: Hex


class TokenMade(Fact, frozen=True, tag="token.created"):
    """An API token; `token_id` is the SHA-256 of its secret."""

    token_id: Hex
    name: Text
    scopes: tuple[Text, ...]
    expires_at: UnixSeconds


class TokenRevoked(Fact, frozen=True, tag="token.revoked"):
    """The token is worthless."""

    token_id: Hex
    name: Text


class AuthFailed(Fact, frozen=True, tag="auth.failed"):
    """A caller was refused that showed a certificate: on the mesh port, or an expired one."""

    host: Text
    serial: Hex
    code: Text
