"""The certificate authority of this node: creation, lock state, slots."""

from typing import Annotated

from msgspec import Meta

from broker.wire.base import Body, Reply, Request, Veiled
from broker.wire.ids import CAState, Hex, Host, Term, Text, UnixSeconds
from broker.wire.policy import Policy

Passphrase = Annotated[bytes, Meta(max_length=1024)]


class CreateMesh(Veiled, Body, frozen=True):
    """Input of `python -m broker create` on standard input (JSON): everything init decides.

    The passphrase never appears in argv or environment. `credential` asks for a credential-file
    slot so that the node unlocks itself at boot.
    """

    name: Text
    passphrase: str
    credential: bool
    enrollment_open: bool
    policy: Policy


class MeshCreation(Veiled, Body, frozen=True):
    """Output of `python -m broker create` (JSON), shown once by `certmesh init`.

    `recovery` is the secret of the recovery kit, `warnings` are sentences about the policy.
    """

    mesh_id: Hex
    name: Text
    domain: Host
    pin: Hex
    host: Host
    totp_uri: Text
    totp_key: Text
    recovery: Text = ""
    warnings: tuple[Text, ...] = ()


class SlotView(Body, frozen=True):
    """One way to unlock; `peer` is whose consent a peer slot needs."""

    slot_id: Text
    kind: Text
    created_at: UnixSeconds
    peer: Text = ""


class AuthorityView(Reply, frozen=True, tag="authority-view"):
    """Public description of the CA."""

    state: CAState
    mesh_name: Text
    domain: Host
    pin: Hex
    term: Term
    root_pem: Text
    issuing_pem: Text
    root_not_after: UnixSeconds
    issuing_not_after: UnixSeconds
    permitted_names: tuple[Text, ...]
    permitted_networks: tuple[Text, ...]
    slots: tuple[SlotView, ...]


class GetAuthority(Request, frozen=True, tag="get-authority"):
    """Ask for the `AuthorityView`."""


class UnlockAuthority(Veiled, Request, frozen=True, tag="unlock-authority"):
    """Open the issuing key with a passphrase; derived off the loop, answered when done."""

    passphrase: Passphrase
    operator: Text


class LockAuthority(Request, frozen=True, tag="lock-authority"):
    """Forget the issuing key until somebody unlocks it."""

    operator: Text
