"""Is this peer one of us? Asked on every request that came over the mesh port.

TLS proved that the caller holds a key our CA certified; everything else, revocation above all, is
decided here against the roster, so that an open connection is no excuse.
"""

from broker.core.names import mesh_domain, server_name
from broker.errors import ErrorCode, MeshError, NotAMemberError, RevokedError
from broker.ledger.rows import MemberRow
from broker.runtime.settings import Settings
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.wire.facts import AuthFailed
from broker.wire.node import Endpoint, Membership
from broker.wire.roster import Peer

REFUSAL_EVERY_MS = 60_000
"""The same refusal of the same peer is one audit row a minute: a refused peer cannot fill disks."""
EVERY_ADDRESS = frozenset({"0.0.0.0", "::", ""})  # noqa: S104 (compared, not bound)


def authorize_member(state: BrokerState, batch: Batch, caller: Caller, peer: Peer) -> MemberRow:
    """Return the active member behind a peer, on a node that has the roster.

    Raises:
        RevokedError: The member or this serial was revoked.
        NotAMemberError: Unknown serial, another certificate under it, or expired.
    """
    try:
        return _member_behind(state, caller, peer)
    except MeshError as refusal:
        note_refusal(state, batch, caller, peer, refusal.code)
        raise


def authorize_key_holder(state: BrokerState, batch: Batch, caller: Caller, peer: Peer) -> Endpoint:
    """Return the doors of the key holder behind a peer.

    A key holder may show a certificate that only the other side of a partition knows: its name in
    a certificate of this mesh is enough, as long as nothing says that it was revoked.

    Raises:
        NotAMemberError: Not a key holder of this mesh, or expired.
        RevokedError: Revoked by the roster or by the newest verified bundle.
    """
    try:
        return _key_holder_behind(state, caller, peer)
    except MeshError as refusal:
        note_refusal(state, batch, caller, peer, refusal.code)
        raise


def refuse_revoked(state: BrokerState, batch: Batch, caller: Caller, peer: Peer) -> None:
    """Refuse a peer that anything known here says is revoked, on whatever node this is.

    A member has no roster: its bundle is what it knows, and who is not in it may be new.

    Raises:
        RevokedError: Revoked by the roster or by the newest verified bundle.
        NotAMemberError: Another certificate has its serial.
    """
    try:
        _refuse_known_revoked(state, peer)
    except MeshError as refusal:
        note_refusal(state, batch, caller, peer, refusal.code)
        raise


def note_refusal(
    state: BrokerState, batch: Batch, caller: Caller, peer: Peer, code: ErrorCode
) -> None:
    """Write the refusal into the audit trail of a CA node, at most once a minute per peer."""
    if not state.serves:
        return
    if state.refusals.passes((peer.serial, code), caller.now_ms, REFUSAL_EVERY_MS):
        batch.append(
            AuthFailed(host=peer.host[:253], serial=peer.serial, code=code.value), "gateway"
        )


def own_endpoint(state: BrokerState, domain: str) -> Endpoint:
    """Return this node's own doors as settings name them."""
    return endpoint_of(state.settings, state.host, domain)


def primary_doors(state: BrokerState) -> Endpoint | None:
    """Return the doors of whoever leads, this node's own included; None without a mesh."""
    membership = state.membership
    if membership is None:
        return None
    if state.role == "primary":
        return own_endpoint(state, own_domain(membership))
    return state.leader() or membership.primary


def own_domain(membership: Membership) -> str:
    """Return the domain of the mesh this node belongs to."""
    if "." in membership.host:
        # A dotted name is its own server name and says nothing about the mesh.
        return mesh_domain(membership.mesh_name)
    return membership.server_name.removeprefix(f"{membership.host}.")


def endpoint_of(settings: Settings, host: str, domain: str) -> Endpoint:
    """Return the doors a node with these settings has; a listener on all addresses names none."""
    enroll_host, enroll_port = split_address(settings.listen.enroll)
    _, mesh_port = split_address(settings.listen.mesh)
    addresses = settings.node.addresses
    if not addresses and enroll_host not in EVERY_ADDRESS:
        addresses = (enroll_host,)
    return Endpoint(
        host=host,
        addresses=addresses,
        enroll_port=enroll_port,
        mesh_port=mesh_port,
        server_name=server_name(host, domain),
    )


def split_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`; port 0 when the listener is off."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port) if port.isdigit() else 0


def _member_behind(state: BrokerState, caller: Caller, peer: Peer) -> MemberRow:
    found = state.ledger.certificate(peer.serial)
    if found is None and (known := _renewed_after_the_backup(state, caller, peer)):
        return known
    if found is None or found[1].fingerprint != peer.fingerprint:
        raise NotAMemberError(
            "this certificate is not in the roster", hint="join again: certmesh join INVITE"
        )
    member, certificate = found
    if member.state != "active" or certificate.state == "revoked":
        raise RevokedError(
            f"{member.host} was revoked", hint="a comeback needs a new invite: certmesh join"
        )
    if certificate.not_after < caller.now:
        raise NotAMemberError(
            f"the certificate of {member.host} expired", hint="join again: certmesh join INVITE"
        )
    return member


def _renewed_after_the_backup(state: BrokerState, caller: Caller, peer: Peer) -> MemberRow | None:
    """Return the active member that a certificate of the lost rows names, after a restoration.

    TLS proved that this CA issued it. A ledger that was restored lacks the certificates issued
    after its backup, and would turn away every member that was renewed meanwhile. What the living
    call revoked stays out, and what could have been issued only later is somebody else's.
    """
    book, mesh = state.restored, state.mesh_row()
    if book is None or not book.mark.settled or mesh is None or peer.not_after < caller.now:
        return None
    if peer.serial in state.follow.still_revoked:
        raise RevokedError(f"{peer.host} was revoked", hint="a comeback needs a new invite")
    if peer.not_after > book.mark.at + mesh.policy.leaf_lifetime_s:
        return None
    member = state.ledger.member_by_host(peer.host)
    return member if member is not None and member.state == "active" else None


def _key_holder_behind(state: BrokerState, caller: Caller, peer: Peer) -> Endpoint:
    if peer.not_after < caller.now:
        raise NotAMemberError(f"the certificate of {peer.host} expired", hint="renew it there")
    _refuse_known_revoked(state, peer)
    leader = state.leader()
    holder = state.key_holder_doors().get(peer.host)
    if holder is None and leader is not None and leader.host == peer.host:
        return leader  # a signed beat proves more than a roster that is behind
    if holder is None:
        raise NotAMemberError(
            f"{peer.host} is not a key holder of this mesh",
            hint="only the primary and standbys may ask this",
        )
    return holder


def _refuse_known_revoked(state: BrokerState, peer: Peer) -> None:
    bundle = state.follow.bundle
    listed = bundle.revoked_serials if bundle is not None else ()
    if peer.serial in listed or peer.serial in state.follow.still_revoked:
        raise RevokedError(f"{peer.host} was revoked", hint="run certmesh member list on the CA")
    if state.mesh_row() is not None:
        _refuse_revoked(state, peer)


def _refuse_revoked(state: BrokerState, peer: Peer) -> None:
    found = state.ledger.certificate(peer.serial)
    if found is None:
        return
    member, certificate = found
    if certificate.fingerprint != peer.fingerprint:
        raise NotAMemberError("another certificate has this serial in the roster")
    if member.state != "active" or certificate.state == "revoked":
        raise RevokedError(f"{member.host} was revoked", hint="a comeback needs a new invite")
