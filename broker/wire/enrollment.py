"""Who may ask to join, and the joining itself."""

from typing import Annotated

from msgspec import Meta

from broker.wire.base import Body, Reply, Request, Veiled
from broker.wire.ids import DER, Count, Hex, Host, Port, Term, Text, UnixSeconds
from broker.wire.node import Endpoint


class CreateInvite(Request, frozen=True, tag="create-invite"):
    """Register an invite. The caller drew the secret; only its SHA-256 travels and is stored."""

    secret_hash: Hex
    host: Host
    sans: tuple[Text, ...]
    ttl_s: Count
    operator: Text
    rejoin: bool = False


class InviteView(Reply, frozen=True, tag="invite-view"):
    """One invite; `state` is `open`, `used`, `expired` or `revoked`.

    `primary` and `pin` are what the invite string carries besides the secret.
    """

    invite_id: Hex
    host: Host
    sans: tuple[Text, ...]
    expires_at: UnixSeconds
    state: Text
    pin: Hex = ""
    mesh_id: Hex = ""
    primary: Endpoint | None = None
    rejoin: bool = False


class ListInvites(Request, frozen=True, tag="list-invites"):
    """Ask for all invites that still matter."""

    limit: Count = 200


class InvitesView(Reply, frozen=True, tag="invites-view"):
    """The invites, newest first."""

    invites: tuple[InviteView, ...]


class RevokeInvite(Request, frozen=True, tag="revoke-invite"):
    """Make an unused invite worthless."""

    invite_id: Hex
    operator: Text


class SetEnrollment(Request, frozen=True, tag="set-enrollment"):
    """Open or close the TOTP door; an invite is its own permission and works while closed.

    The issue says closed enrollment refuses: it refuses TOTP joins; invites are the operator's
    explicit, host-bound permission.
    """

    open: bool
    operator: Text


class GetEnrollment(Request, frozen=True, tag="get-enrollment"):
    """Ask for the `EnrollmentView`."""


class EnrollmentView(Reply, frozen=True, tag="enrollment-view"):
    """Whether strangers with a TOTP code may ask, and whether a person must agree."""

    open: bool
    approval: bool


class StartTOTPRotation(Request, frozen=True, tag="start-totp-rotation"):
    """Draw a new enrollment secret; the old one stays until the new one is proven."""

    operator: Text


class TOTPRotationView(Veiled, Reply, frozen=True, tag="totp-rotation-view"):
    """The new secret for an authenticator, shown once."""

    totp_uri: Text
    totp_key: Text
    ttl_s: Count


class FinishTOTPRotation(Veiled, Request, frozen=True, tag="finish-totp-rotation"):
    """A code of the new secret: from now on only the new one counts."""

    code: Text
    operator: Text


class Join(Veiled, Request, frozen=True, tag="join"):
    """A stranger asks for a certificate; exactly one of `invite_secret` and `totp_code` is set.

    `ticket_hash` is the SHA-256 of a secret the joiner keeps for polling; `nonce` goes into the
    comparison words. `source` is the peer address as the gateway saw it. `addresses` and
    `mesh_port` say where the joiner will serve its mesh port.
    """

    host: Host
    csr: DER
    sans: tuple[Text, ...]
    invite_secret: Text
    totp_code: Text
    ticket_hash: Hex
    nonce: Hex
    addresses: tuple[Text, ...]
    mesh_port: Port
    enroll_port: Port
    source: Text


class Issued(Body, frozen=True):
    """A certificate with all a node needs to use it: leaf and issuing certificate, DER."""

    serial: Hex
    leaf: DER
    issuing: DER
    root: DER
    not_before: UnixSeconds
    not_after: UnixSeconds
    renew_at: UnixSeconds


class JoinAnswer(Reply, frozen=True, tag="join-answer"):
    """`issued` now, or pending under `ticket_id` with the words both sides compare."""

    issued: Issued | None
    member_id: Hex
    server_name: Host
    mesh_id: Hex
    mesh_name: Text
    primary: Endpoint | None
    term: Term
    ticket_id: Hex = ""
    words: tuple[Text, ...] = ()
    retry_after_ms: Count = 0


class PollTicket(Veiled, Request, frozen=True, tag="poll-ticket"):
    """Ask what became of a pending join; answered with a `JoinAnswer` or a refusal."""

    ticket_id: Hex
    ticket_secret: Text


class GetMesh(Request, frozen=True, tag="get-mesh"):
    """The public face of the mesh, as the enrol port shows it."""


class MeshAnswer(Reply, frozen=True, tag="mesh-answer"):
    """Mesh id, pin, term and whether the door is open; nothing else. Root in DER."""

    mesh_id: Hex
    pin: Hex
    term: Term
    open: bool
    root: DER
    primary: Endpoint | None = None


class GetTrust(Request, frozen=True, tag="get-trust"):
    """Public trust material for the enrol port."""


class TrustAnswer(Reply, frozen=True, tag="trust-answer"):
    """Root and issuing certificate, newest CRL (empty while none was signed), DER.

    `root_crl` is the root's own list, which names nobody: software that checks a whole chain wants
    one of each authority in it. The times are those of `crl`, None without one. `other_lists` are
    those of the other CA while one replaces the other.
    """

    root: DER
    issuing: DER
    crl: bytes
    crl_number: Count
    root_crl: DER = b""
    this_update: UnixSeconds | None = None
    next_update: UnixSeconds | None = None
    other_lists: Annotated[tuple[bytes, ...], Meta(max_length=4)] = ()


class InstallCRL(Request, frozen=True, tag="install-crl"):
    """A worker fetched revocation lists (PEM); verified against the pinned root, forward only."""

    lists: bytes
    source: Text


class CRLInstalled(Reply, frozen=True, tag="crl-installed"):
    """The newest list now held; `changed` false when it was already known."""

    crl_number: Count
    changed: bool
