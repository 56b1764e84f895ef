"""The roster: members, revocation, presence, and the signed bundle that carries it around."""

from typing import Annotated, Literal

from msgspec import Meta

from broker.wire.base import Body, Reply, Request
from broker.wire.claims import Gossip, Head, SignedName
from broker.wire.ids import (
    DER,
    Count,
    Hex,
    Host,
    Role,
    Sequence,
    ServedState,
    Term,
    Text,
    UnixSeconds,
)
from broker.wire.node import Endpoint, MemberLine
from broker.wire.policy import Fraction


class Peer(Body, frozen=True):
    """The verified client certificate of a caller on the mesh port, as the gateway saw it.

    TLS proved possession and the chain; whether its owner still belongs to the mesh is the
    broker's decision on every request.
    """

    serial: Hex
    host: Host
    fingerprint: Hex
    not_after: UnixSeconds
    address: Text = ""


class ListMembers(Request, frozen=True, tag="list-members"):
    """Ask for members behind `after`.

    By `expiry` come active members alone, first whose certificate ends first, and `after` is what
    the page before gave. `expiring_s` wants those that end within it (negative: any), `state` those
    whose state or delivery has that name. A page may then be shorter, or empty, and not the last.
    """

    after: Text = ""
    limit: Count = 500
    order: Literal["host", "expiry"] = "host"
    expiring_s: Annotated[int, Meta(ge=-1, le=10**15)] = -1
    state: Text = ""


class MembersView(Reply, frozen=True, tag="members-view"):
    """A page of the roster; `next_after` is empty on the last one."""

    members: tuple[MemberLine, ...]
    total: Count
    next_after: Text = ""


class GetMember(Request, frozen=True, tag="get-member"):
    """Ask for one member by host name."""

    host: Host


class CertificateLine(Body, frozen=True):
    """One certificate ever issued to a member; `state`: active, superseded, revoked."""

    serial: Hex
    not_before: UnixSeconds
    not_after: UnixSeconds
    state: Text
    fingerprint: Hex


class MemberView(Reply, frozen=True, tag="member-view"):
    """One member with its certificates, newest first."""

    member: MemberLine
    certificates: tuple[CertificateLine, ...]


class RevokeMember(Request, frozen=True, tag="revoke-member"):
    """Revoke a member: its identity and all its serials, for ever."""

    host: Host
    reason: Text
    operator: Text
    dry_run: bool = False


class RevocationAnswer(Reply, frozen=True, tag="revocation-answer"):
    """What was revoked; `enforced_by` counts nodes known to refuse it already.

    `standbys_durable` of `standbys` have the revocation on their own disk. `lacking` are nodes
    heard lately that do not know of it yet, `away` those not heard lately; at most 200 of each.
    """

    host: Host
    member_id: Hex
    serials: tuple[Hex, ...]
    sequence: Sequence
    enforced_by: Count
    members: Count
    standbys: Count = 0
    standbys_durable: Count = 0
    lacking: tuple[Host, ...] = ()
    away: tuple[Host, ...] = ()


class GetReach(Request, frozen=True, tag="get-reach"):
    """Ask who enforces an earlier revocation by now; answered with a `RevocationAnswer`."""

    host: Host


class ReinstateMember(Request, frozen=True, tag="reinstate-member"):
    """Lift the bar on a revoked host's name, so that it may join again as somebody new."""

    host: Host
    operator: Text


class RenameMember(Request, frozen=True, tag="rename-member"):
    """Give a member another name; it gets a certificate for it by the usual renewal."""

    host: Host
    new_host: Host
    operator: Text
    dry_run: bool = False


class LeaveMesh(Request, frozen=True, tag="leave-mesh"):
    """A member gives its certificate back: POST /v1/leave."""

    peer: Peer


class KeyHolder(Body, frozen=True):
    """A node that is primary or standby, with its doors."""

    member_id: Hex
    role: Role
    endpoint: Endpoint


class BundleBody(Body, frozen=True):
    """What every node must know of the roster; signed as a whole by the issuing key.

    `bundle_sequence` is the journal sequence of the newest row that changed it.
    `revoked_serials` holds serials not yet expired. `roots` are root certificates to trust besides
    the pinned one, while the CA is being replaced, and `issuers` the issuing certificates
    below them.
    """

    mesh_id: Hex
    pin: Hex
    head: Head
    bundle_sequence: Sequence
    key_holders: tuple[KeyHolder, ...]
    revoked_serials: tuple[Hex, ...]
    revoked_members: tuple[Hex, ...]
    roots: Annotated[tuple[DER, ...], Meta(max_length=2)] = ()
    issuers: Annotated[tuple[DER, ...], Meta(max_length=2)] = ()


class SignedBundle(Body, frozen=True):
    """msgpack bytes of a `BundleBody`, the issuing certificate, and ECDSA over the bytes.

    The issuing certificate must chain to the *pinned* root; a key inside the bundle counts for
    nothing by itself.
    """

    body: bytes
    issuing: DER
    signature: bytes


class GetBundle(Request, frozen=True, tag="get-bundle"):
    """Ask for the newest signed bundle; empty answer when the caller already has it.

    Bundles are ordered by (term, sequence): `after` and `after_term` name the caller's. `peer` is
    set when the caller came through the mesh port and is then checked. `handover` asks for the last
    bundle that the retiring CA signed, for a node that slept while the CA was replaced.
    """

    after: Sequence = 0
    peer: Peer | None = None
    after_term: Term = 0
    handover: bool = False


class BundleAnswer(Reply, frozen=True, tag="bundle-answer"):
    """The bundle as msgpack of `SignedBundle`, empty when there is nothing newer."""

    bundle: bytes
    bundle_sequence: Sequence
    term: Term


class InstallBundle(Request, frozen=True, tag="install-bundle"):
    """A worker fetched a bundle; the broker verifies it against the pin and moves forward only."""

    bundle: bytes
    source: Text


class BundleInstalled(Reply, frozen=True, tag="bundle-installed"):
    """The newest bundle now held; `changed` false when it was already known."""

    bundle_sequence: Sequence
    term: Term
    changed: bool


class RecordHeartbeat(Request, frozen=True, tag="record-heartbeat"):
    """A member says it lives and what it serves. Presence, not history: no journal row.

    `trusts` are the pins of all roots it trusts. `witness` is the newest head of the journal that
    it has seen signed. `term` is the newest it knows, `bundle_term` that of its bundle.
    """

    peer: Peer
    pin: Hex
    served_serial: Hex
    served_not_after: UnixSeconds | None
    served: ServedState
    endpoint: Endpoint | None
    clock: UnixSeconds
    bundle_sequence: Sequence
    term: Term
    gossip: Gossip = Gossip()
    trusts: Annotated[tuple[Hex, ...], Meta(max_length=4)] = ()
    witness: Head | None = None
    bundle_term: Term = 0


class HeartbeatAnswer(Reply, frozen=True, tag="heartbeat-answer"):
    """`valid` false means the caller pins another CA; the rest lets members follow at once.

    `nominated` true: the primary offers the caller its key. `named` is there while the
    caller goes by another name than the roster's. `renew_at` is the mesh's policy: members
    without a roster ask for their renewal by it.
    """

    valid: bool
    primary: Endpoint | None
    term: Term
    bundle_sequence: Sequence
    clock: UnixSeconds
    next_beat_ms: Count
    gossip: Gossip = Gossip()
    nominated: bool = False
    named: SignedName | None = None
    renew_at: Fraction | None = None


class PrepareHeartbeat(Request, frozen=True, tag="prepare-heartbeat"):
    """The heartbeat worker asks what to say and to whom."""


class HeartbeatPlan(Reply, frozen=True, tag="heartbeat-plan"):
    """Body of the next heartbeat and where to send it; no targets means stay quiet."""

    targets: tuple[Endpoint, ...]
    pin: Hex
    served_serial: Hex
    served_not_after: UnixSeconds | None
    served: ServedState
    endpoint: Endpoint | None
    bundle_sequence: Sequence
    term: Term
    gossip: Gossip = Gossip()
    trusts: Annotated[tuple[Hex, ...], Meta(max_length=4)] = ()
    witness: Head | None = None
    bundle_term: Term = 0


class NoteHeartbeat(Request, frozen=True, tag="note-heartbeat"):
    """The heartbeat worker reports an answer it got over verified mTLS from `host`."""

    host: Host
    answer: HeartbeatAnswer


class WhoAmI(Request, frozen=True, tag="who-am-i"):
    """A peer asks how the CA sees it."""

    peer: Peer


class WhoAmIAnswer(Reply, frozen=True, tag="who-am-i-answer"):
    """Name, role and state of the caller."""

    host: Host
    member_id: Hex
    role: Role
    serial: Hex
    state: Text
