"""JSON bodies between nodes: the enrol port and the mesh port.

Bytes travel as base64 (msgspec's JSON form). Sizes are bounded by the gateway's body limit before
decoding. Certificates and CSRs are DER.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from broker.wire.base import Body, Veiled
from broker.wire.claims import Claim, Gossip, Head, SignedMandate
from broker.wire.ids import (
    DER,
    Count,
    Hex,
    Host,
    Port,
    Sequence,
    ServedState,
    Term,
    Text,
    UnixSeconds,
)
from broker.wire.node import Endpoint


class JoinBody(Veiled, Body, frozen=True):
    """POST /v1/join. Exactly one of `invite` and `totp` is not empty."""

    host: Host
    csr: DER
    ticket_hash: Hex
    nonce: Hex
    invite: Text = ""
    totp: Text = ""
    sans: tuple[Text, ...] = ()
    addresses: tuple[Text, ...] = ()
    mesh_port: Port = 7643
    enroll_port: Port = 7642


class RenewBody(Body, frozen=True):
    """POST /v1/renew."""

    csr: DER


class InstalledBody(Body, frozen=True):
    """POST /v1/installed."""

    serial: Hex
    state: ServedState
    detail: Text = ""


class HeartbeatBody(Body, frozen=True):
    """POST /v1/heartbeat."""

    pin: Hex
    served_serial: Hex
    served: ServedState
    clock: UnixSeconds
    bundle_sequence: Sequence
    term: Term
    served_not_after: UnixSeconds | None = None
    endpoint: Endpoint | None = None
    gossip: Gossip = Gossip()
    trusts: Annotated[tuple[Hex, ...], Meta(max_length=4)] = ()
    witness: Head | None = None
    bundle_term: Term = 0


class RekeyBody(Body, frozen=True):
    """POST /v1/renewal/csr: the term the asking primary serves in."""

    term: Term
    mandate: SignedMandate | None = None


class InstallBody(Body, frozen=True):
    """POST /v1/renewal/install."""

    leaf: DER
    issuing: DER
    term: Term
    mandate: SignedMandate | None = None


class RenewExpiredBody(Body, frozen=True):
    """POST /v1/renew-expired, at the enrol port."""

    leaf: DER
    csr: DER
    signature: Annotated[bytes, Meta(max_length=128)]


class HelloBody(Body, frozen=True):
    """POST /v1/hello."""

    claim: Claim
    gossip: Gossip = Gossip()


class Problem(Body, frozen=True):
    """`application/problem+json` (RFC 9457) with our extension members."""

    type: Text
    title: Text
    status: Count
    code: Text
    detail: Text
    hint: Text = ""
    request_id: Text = ""
    primary: Endpoint | None = None


class InviteTicket(Veiled, Body, frozen=True):
    """What an invite string carries; the text form is `cm1:` + base64url of its JSON."""

    addresses: tuple[Text, ...]
    enroll_port: Port
    pin: Hex
    host: Host
    expires_at: UnixSeconds
    secret: Text
    mesh: Text = ""
    sans: tuple[Text, ...] = ()
    server_name: Host = "ca"


REPLY_JSON = msgspec.json.Encoder()
"""Replies of the broker are sent over HTTP as the JSON of their Struct (with `kind`)."""
