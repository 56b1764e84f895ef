"""This node under another name: what the primary calls it, it becomes.

A renamed member goes on with the certificate it has, found under both names on disk, until it has
one for the new name. The word comes with every answer to a heartbeat, so whatever fails here is
tried again a beat later.

Invariant: a name is taken for the signature of the issuing key alone, which names the member and
the row of the journal. An answer that was recorded, or that comes from somebody with the primary's
stolen certificate, renames nobody: it speaks of another member, or of an older row.
"""

import os
import secrets
from pathlib import Path

from cryptography import x509
from msgspec.structs import replace

from broker.clock import boottime_ms
from broker.core.names import check_host, server_name
from broker.errors import ClaimRejectedError, MeshError, NameNotAllowedError
from broker.ledger.rows import MemberRow
from broker.pki.authority import der_of_pem
from broker.pki.chain import read_certificate
from broker.pki.statement import sign_name
from broker.runtime.events import EventName
from broker.runtime.files import fsync_directory
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.gossip import verified_name
from broker.shell.membership import write_membership
from broker.shell.peers import own_domain
from broker.shell.standing import open_election
from broker.shell.state import BrokerState
from broker.wire.claims import NameStatement, SignedName
from broker.wire.codec import decode_body, encode_body
from broker.wire.events import RoleMoved, WorkAvailable
from broker.wire.ids import Service
from broker.wire.node import Membership
from broker.wire.roster import RecordHeartbeat

LOCAL_NAME = "name"
UNREADABLE = (OSError, ValueError, MeshError, x509.ExtensionNotFound)


def name_for(state: BrokerState, member: MemberRow, request: RecordHeartbeat) -> SignedName | None:
    """Return what a member is called, signed, while its certificate or itself says otherwise."""
    issuer, membership = state.keys.issuer, state.membership
    believed = {request.peer.host, request.endpoint.host if request.endpoint else member.host}
    if not state.serves or issuer is None or membership is None or believed == {member.host}:
        return None
    head = state.ledger.head
    named = NameStatement(
        membership.mesh_id, member.member_id, member.host, head.term, head.sequence
    )
    return sign_name(issuer, named)


def follow_name(state: BrokerState, batch: Batch, signed: SignedName | None) -> None:
    """Take the name that the primary says, and a certificate for it.

    Args:
        state: The broker.
        batch: The drain; the change happens once it is committed.
        signed: What the primary calls this node; None while both agree.
    """
    membership = state.membership
    # Key holders are known by their names and never renamed.
    if signed is None or membership is None or state.role != "member":
        return
    try:
        named = verified_name(state, signed)
    except ClaimRejectedError as error:
        log(EventName.ROSTER_REJECTED, reason=f"a new name for this node: {error.detail}")
        return
    if named.member_id != membership.member_id:
        return
    version, host = (named.term, named.sequence), named.host
    if host != membership.host:
        if version > _known_version(state):
            batch.keep(LOCAL_NAME, encode_body(named))
            _change(state, batch, membership, host)
    elif state.own.present and not state.force_renewal and not _is_certified(state, membership):
        _want_certificate(state, batch)


def _known_version(state: BrokerState) -> tuple[int, int]:
    """Return the place in the journal of the newest name that this node has taken."""
    raw = state.ledger.local_get(LOCAL_NAME)
    if raw is None:
        return (0, 0)
    taken = decode_body(raw, NameStatement)
    return (taken.term, taken.sequence)


def share_certificates(root: Path, old: str, new: str) -> None:
    """Let the certificates of `old` be found under `new` as well; what was there is set aside.

    A link, because it is one step: at no instant is there a name without a certificate, and what
    was configured with the old path goes on to work.
    """
    store, place = (root / old).resolve(), root / new
    if not store.is_dir() or place.resolve() == store:
        return
    if os.path.lexists(place):
        place.rename(root / f"{new}.aside-{secrets.token_hex(4)}")
    place.symlink_to(store.name)
    fsync_directory(root)


def _change(state: BrokerState, batch: Batch, membership: Membership, host: str) -> None:
    try:
        # It becomes a directory name, so not even the primary is taken at its word.
        name = server_name(check_host(host), own_domain(membership))
    except NameNotAllowedError:
        return
    batch.after_commit.append(lambda: _take(state, host, name))
    batch.publish(RoleMoved(state.role, state.term))
    batch.publish(WorkAvailable(Service.RENEWAL))


def _take(state: BrokerState, host: str, name: str) -> None:
    """Become the new name on disk, then in memory."""
    assert state.membership is not None
    # As it is now: a bundle of the same drain may have changed which roots it trusts.
    before, renamed = state.host, replace(state.membership, host=host, server_name=name)
    try:
        share_certificates(state.paths.certificates, before, renamed.host)
        write_membership(state.paths, renamed)
    except OSError as error:
        log(EventName.STORAGE_FAILED, detail=f"cannot take the name {renamed.host}: {error}")
        return
    state.membership, state.host = renamed, renamed.host
    open_election(state, boottime_ms())
    state.wish_renewal()
    state.own_failure = ""
    log(EventName.MEMBER_RENAMED, before=before, host=renamed.host)


def _want_certificate(state: BrokerState, batch: Batch) -> None:
    """Ask for a renewal now; an attempt under the old name may have failed or been interrupted."""
    state.wish_renewal()
    batch.on_void.append(lambda: setattr(state, "force_renewal", False))
    batch.publish(WorkAvailable(Service.RENEWAL))


def _is_certified(state: BrokerState, membership: Membership) -> bool:
    """Return whether the live certificate is for this node's name; True when nobody can say."""
    live = state.paths.certificates / membership.host / "live" / "cert.pem"
    try:
        leaf = read_certificate(der_of_pem(live.read_text(encoding="ascii")))
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE:
        return True
    return membership.server_name in names.get_values_for_type(x509.DNSName)
