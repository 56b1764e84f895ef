"""The signed bundle: made by the primary, verified and kept by everybody else; trust material."""

from broker.core.observation import Observation, Version
from broker.core.rollover import Anchors
from broker.errors import BundleRejectedError, NoMeshError
from broker.pki.authority import der_of_pem, fingerprint
from broker.pki.bundle import verify_bundle
from broker.pki.chain import is_younger
from broker.shell.batch import Batch
from broker.shell.bundling import (
    BUNDLE_REVOKED_MAX,
    LOCAL_BUNDLE,
    LOCAL_STILL_REVOKED,
    StillRevoked,
    current_bundle,
    handover_bundle,
    keep_handover,
    primary_of,
)
from broker.shell.caller import Caller
from broker.shell.lists import current_lists, issuing_of, take_lists
from broker.shell.peers import authorize_member, primary_doors, refuse_revoked
from broker.shell.state import BrokerState
from broker.shell.succession import hear
from broker.shell.trust import anchors_of, follow_and_tell
from broker.units import UnixSeconds
from broker.wire.claims import Gossip
from broker.wire.codec import decode_body, encode_body
from broker.wire.enrollment import (
    CRLInstalled,
    GetMesh,
    GetTrust,
    InstallCRL,
    MeshAnswer,
    TrustAnswer,
)
from broker.wire.events import BundleMoved, RoleMoved
from broker.wire.roster import (
    BundleAnswer,
    BundleBody,
    BundleInstalled,
    GetBundle,
    InstallBundle,
    SignedBundle,
)


def get_bundle(
    state: BrokerState, batch: Batch, caller: Caller, request: GetBundle
) -> BundleAnswer:
    """Return the newest bundle if it is newer than what the caller has.

    Of the last bundle of a retiring CA anybody may have a copy: it proves itself, and who needs it
    cannot verify a connection to this node.
    """
    if request.handover:
        current_bundle(state, batch, caller.now)  # nobody may have asked since the switch
        handover = handover_bundle(state)
        if handover is None:
            return BundleAnswer(b"", 0, state.term)
        return BundleAnswer(handover[0], handover[1].bundle_sequence, handover[1].head.term)
    if request.peer is not None and state.serves:
        authorize_member(state, batch, caller, request.peer)
    elif request.peer is not None:
        refuse_revoked(state, batch, caller, request.peer)
    raw, body = current_bundle(state, batch, caller.now)
    if body is None:
        return BundleAnswer(b"", 0, state.term)
    newer = (body.head.term, body.bundle_sequence) > (request.after_term, request.after)
    return BundleAnswer(raw if newer else b"", body.bundle_sequence, body.head.term)


def install_bundle(
    state: BrokerState, batch: Batch, caller: Caller, request: InstallBundle
) -> BundleInstalled:
    """Verify a fetched bundle against the pin and go forward, never back.

    Raises:
        BundleRejectedError: Bad signature, other mesh, of a CA that this node has left, older than
            known, or another content under a known sequence (which would mean two truths: an
            alarm).
    """
    membership = state.membership
    if membership is None:
        raise NoMeshError("this node belongs to no mesh")
    anchors = anchors_of(membership)
    body = verify_bundle(
        decode_body(request.bundle, SignedBundle),
        root=anchors.pinned,
        pin=membership.pin,
        mesh_id=membership.mesh_id,
        now=caller.now,
        others=anchors.others,
    )
    if state.role == "member":
        _require_not_left(body, anchors)
    known = batch.installing or state.follow.bundle
    if known is not None and not _is_forward(known, body, request.source):
        return BundleInstalled(known.bundle_sequence, known.head.term, changed=False)
    batch.installing = body
    term = Version(body.head.term, 0)
    hear(state, batch, Observation(request.source, head=term), Gossip(), caller.now_ms)
    batch.keep(LOCAL_BUNDLE, request.bundle)
    _carry_revocations(state, batch, known, body)
    keep_handover(state, batch, body)
    batch.after_commit.append(lambda: adopt_bundle(state, request.bundle, body))
    batch.after_commit.append(lambda: follow_and_tell(state, batch, caller.now_ms, caller.now))
    batch.publish(BundleMoved(body.bundle_sequence))
    batch.publish(RoleMoved(state.role, max(state.term, body.head.term)))
    return BundleInstalled(body.bundle_sequence, body.head.term, changed=True)


def _require_not_left(body: BundleBody, anchors: Anchors) -> None:
    """Refuse a bundle of a CA that this node has left, though its certificates still count.

    Its number may be of a thief's choice, and would bar every bundle of the CA in force: also the
    one that says to trust the old root no longer. A key holder goes by its rows, which may come
    from a primary that does not know of the switch yet.
    """
    by_pin = {fingerprint(root): root for root in anchors.others}
    other = by_pin.get(body.pin)
    if other is not None and not is_younger(other, anchors.pinned):
        raise BundleRejectedError(
            "the bundle is signed by a CA that this node has left",
            hint="the primary did not take part in the switch: certmesh ca rollover status there",
        )


def _carry_revocations(
    state: BrokerState, batch: Batch, known: BundleBody | None, body: BundleBody
) -> None:
    """Remember serials that an earlier primary revoked and this bundle does not know (yet).

    A standby may have taken over before the revocation reached it; who has seen it goes on
    refusing.
    """
    if known is None or body.head.term <= known.head.term:
        return
    seen = dict.fromkeys((*state.follow.still_revoked, *known.revoked_serials))
    missing = tuple(s for s in seen if s not in set(body.revoked_serials))[-BUNDLE_REVOKED_MAX:]
    if missing != state.follow.still_revoked:
        batch.keep(LOCAL_STILL_REVOKED, encode_body(StillRevoked(missing)))
        batch.after_commit.append(lambda: setattr(state.follow, "still_revoked", missing))


def adopt_bundle(state: BrokerState, raw: bytes, body: BundleBody) -> None:
    """Make a verified bundle the one in force on this node."""
    newer_term = body.head.term >= state.term
    state.follow.bundle, state.follow.bundle_bytes = body, raw
    state.follow.term = max(state.follow.term, body.head.term)
    if newer_term:
        state.follow.primary = primary_of(body) or state.follow.primary


def get_mesh(state: BrokerState, _batch: Batch, _caller: Caller, _request: GetMesh) -> MeshAnswer:
    """Return the mesh's public face."""
    membership = state.membership
    if membership is None:
        raise NoMeshError("this node belongs to no mesh")
    mesh = state.mesh_row()
    return MeshAnswer(
        mesh_id=membership.mesh_id,
        pin=membership.pin,
        term=state.term,
        open=bool(mesh is not None and state.serves and mesh.enrollment_open),
        root=der_of_pem(membership.root_pem),
        primary=primary_doors(state) or membership.primary,
    )


def get_trust(state: BrokerState, batch: Batch, caller: Caller, _request: GetTrust) -> TrustAnswer:
    """Return root, issuing certificate and CRL."""
    membership = state.membership
    if membership is None:
        raise NoMeshError("this node belongs to no mesh")
    issuing = issuing_of(state)
    root, lists = der_of_pem(membership.root_pem), current_lists(state, batch, caller.now)
    if lists is None:
        return TrustAnswer(root, issuing, b"", 0)
    return TrustAnswer(
        root=root,
        issuing=issuing,
        crl=lists.crl,
        crl_number=lists.number,
        root_crl=lists.root_crl,
        this_update=lists.this_update,
        next_update=UnixSeconds(lists.next_update),
        other_lists=lists.others,
    )


def install_crl(
    state: BrokerState, batch: Batch, caller: Caller, request: InstallCRL
) -> CRLInstalled:
    """Keep revocation lists that a worker fetched, to serve them from here too.

    Raises:
        BundleRejectedError: Not signed by this mesh's CA, older than known, or another list under
            a known number.
    """
    membership = state.membership
    if membership is None:
        raise NoMeshError("this node belongs to no mesh")
    return take_lists(state, batch, caller.now, request)


def _is_forward(known: BundleBody, offered: BundleBody, source: str) -> bool:
    old = (known.head.term, known.bundle_sequence)
    new = (offered.head.term, offered.bundle_sequence)
    if new < old:
        raise BundleRejectedError(
            f"{source} offered bundle {new}, this node has seen {old} already",
            hint="an old copy is being replayed, or the primary was restored from a backup",
        )
    if new == old and _content(known) != _content(offered):
        raise BundleRejectedError(
            f"{source} offered another content under bundle {new}",
            hint="two primaries may have signed under one term: certmesh status on each CA node",
        )
    return new > old


def _content(body: BundleBody) -> tuple[object, ...]:
    return (body.key_holders, body.revoked_serials, body.revoked_members, body.pin, body.roots)
