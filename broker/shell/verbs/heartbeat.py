"""Heartbeats: a member says it lives, the primary says where it stands."""

import msgspec

from broker.core.doors import check_doors
from broker.core.names import server_name
from broker.core.presence import Presence
from broker.errors import NameNotAllowedError, NotAMemberError, NotFoundError
from broker.ledger.rows import MemberRow
from broker.shell.announced import announced_primaries
from broker.shell.batch import Batch
from broker.shell.bundling import LOCAL_PRIMARY, KnownPrimary, current_bundle
from broker.shell.caller import Caller
from broker.shell.gossip import gossip_of, observe
from broker.shell.pace import beat_every_ms
from broker.shell.peers import (
    authorize_key_holder,
    authorize_member,
    own_domain,
    own_endpoint,
    primary_doors,
)
from broker.shell.renaming import follow_name, name_for
from broker.shell.served import note_served
from broker.shell.state import BrokerState
from broker.shell.succession import hear
from broker.shell.trust import other_pins, trusts_of
from broker.shell.witness import keep_head, newest_head, note_witness
from broker.wire.codec import encode_body
from broker.wire.control import Ack
from broker.wire.events import BundleMoved, RoleMoved, SyncWanted
from broker.wire.facts import MemberMoved
from broker.wire.node import Endpoint
from broker.wire.roster import (
    HeartbeatAnswer,
    HeartbeatPlan,
    NoteHeartbeat,
    PrepareHeartbeat,
    RecordHeartbeat,
    WhoAmI,
    WhoAmIAnswer,
)

DOORS_EVERY_MS = 10_000
"""A member may move its doors this often."""


def record_heartbeat(
    state: BrokerState, batch: Batch, caller: Caller, request: RecordHeartbeat
) -> HeartbeatAnswer:
    """Note a member's presence, and let the election hear what it carries.

    Every key holder takes heartbeats: members are the witnesses of a primary's life, and the way
    by which two key holders hear of each other when they cannot reach each other. Only a serving
    primary writes a row, and only when the member's doors or certificate changed.
    """
    mesh = state.known_mesh()
    member = authorize_member(state, batch, caller, request.peer)
    presence = Presence(
        seen_at=caller.now,
        served_serial=request.served_serial,
        served=request.served,
        bundle_sequence=request.bundle_sequence,
        skew_s=request.clock - caller.now,
        trusts=request.trusts,
        bundle_term=request.bundle_term,
    )
    state.presence.note(member.member_id, presence)
    note_witness(state, member, request.witness, (caller.now_ms, caller.now))
    seen = observe(state, caller.now_ms, member.host, request.gossip)
    hear(state, batch, seen, request.gossip, caller.now_ms)
    if state.serves:
        _follow_doors(state, batch, caller, (member, request.endpoint))
        if request.served_serial:
            _follow_served(state, batch, member, request)
    _, bundle = current_bundle(state, batch, caller.now)
    return HeartbeatAnswer(
        valid=request.pin == mesh.pin or request.pin in other_pins(state),
        primary=primary_doors(state),
        term=state.term,
        bundle_sequence=bundle.bundle_sequence if bundle else 0,
        clock=caller.now,
        next_beat_ms=beat_every_ms(state),
        gossip=gossip_of(state, caller.now_ms, caller.now),
        nominated=state.serves and (member.nominated or member.role == "standby"),
        named=name_for(state, member, request),
        renew_at=mesh.policy.renew_at,
    )


def _follow_served(
    state: BrokerState, batch: Batch, member: MemberRow, request: RecordHeartbeat
) -> None:
    """Take a beat as a report of what is served, so that a lost report mends itself."""
    same = (member.served_serial, member.served) == (request.served_serial, request.served)
    # A beat has no words of its own: it keeps those of the report it agrees with.
    report = (request.served_serial, request.served, member.served_detail if same else "")
    try:
        note_served(state, batch, member.member_id, report, source="beat")
    except NotFoundError:
        return  # a serial of somebody else is a lie; the beat itself still counts as presence


def _follow_doors(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[MemberRow, Endpoint | None]
) -> None:
    """Note new addresses of a member; host and server name stay what they were certified as."""
    member, offered = what
    if offered is None or not offered.addresses:
        return
    try:
        addresses = check_doors(offered.addresses, offered.mesh_port, offered.enroll_port)
    except NameNotAllowedError:
        return
    doors = Endpoint(
        host=member.host,
        addresses=addresses,
        enroll_port=offered.enroll_port,
        mesh_port=offered.mesh_port,
        server_name=member.endpoint.server_name,
    )
    key = ("doors", member.member_id)
    if doors != member.endpoint and state.rows.passes(key, caller.now_ms, DOORS_EVERY_MS):
        batch.append(MemberMoved(member.member_id, doors), member.host)


def prepare_heartbeat(
    state: BrokerState, _batch: Batch, caller: Caller, _request: PrepareHeartbeat
) -> HeartbeatPlan:
    """Return what this node says, and to whom: every other key holder, never itself."""
    membership = state.membership
    own, follow = state.own, state.follow
    targets: tuple[Endpoint, ...] = ()
    endpoint = None
    if membership is not None and state.role != "primary" and own.present:
        known = tuple(state.key_holder_doors().values())
        targets = (*known, *announced_primaries(state, caller.now_ms))
        endpoint = own_endpoint(state, own_domain(membership))
    return HeartbeatPlan(
        targets=targets,
        pin=membership.pin if membership else "",
        served_serial=own.serial,
        served_not_after=own.not_after,
        served=own.state,
        endpoint=endpoint,
        bundle_sequence=follow.bundle.bundle_sequence if follow.bundle else 0,
        term=state.term,
        gossip=gossip_of(state, caller.now_ms, caller.now),
        trusts=trusts_of(state),
        witness=newest_head(state),
        bundle_term=follow.bundle.head.term if follow.bundle else 0,
    )


def note_heartbeat(state: BrokerState, batch: Batch, caller: Caller, request: NoteHeartbeat) -> Ack:
    """Learn beats, the primary and a newer bundle from an answer over verified mTLS.

    Who leads is believed for a signed beat alone. The rest of an answer counts only if it comes
    from, or speaks of, the primary that the beats name.

    Raises:
        NotAMemberError: Neither a known key holder nor proved to be a primary by its own beat.
    """
    answer, follow = request.answer, state.follow
    seen = observe(state, caller.now_ms, request.host, answer.gossip)
    proved = any(beat.primary == request.host for beat in seen.beats)
    if request.host not in state.key_holder_doors() and not proved:
        raise NotAMemberError(f"{request.host} is not a key holder of this mesh")
    hear(state, batch, seen, answer.gossip, caller.now_ms)
    keep_head(state, batch, caller.now_ms)
    _learn_doors(state, batch, answer)
    leader = state.leader()
    if leader is not None and leader.host == request.host:
        _follow_nomination(state, batch, offered=answer.nominated)
        follow_name(state, batch, answer.named)
        follow.renew_at = answer.renew_at or follow.renew_at
    have = (follow.bundle.head.term, follow.bundle.bundle_sequence) if follow.bundle else (0, 0)
    offered = (answer.term, answer.bundle_sequence)
    believable = answer.bundle_sequence and answer.term <= state.term
    if believable and offered > max(have, follow.bundle_wanted):
        follow.bundle_wanted = offered
        batch.publish(BundleMoved(answer.bundle_sequence))
    return Ack()


def _follow_nomination(state: BrokerState, batch: Batch, *, offered: bool) -> None:
    """Note whether the primary offers this member its key."""
    nominated = offered and state.role == "member"
    if nominated and not state.follow.nominated:
        batch.publish(SyncWanted())
    state.follow.nominated = nominated


def _learn_doors(state: BrokerState, batch: Batch, answer: HeartbeatAnswer) -> None:
    """Remember where the primary is that the beats name; TLS will ask for its own name there."""
    doors, follow, membership = answer.primary, state.follow, state.membership
    if doors is None or not doors.addresses or membership is None:
        return
    leader = state.election.leader if state.election else None
    expected = leader.host if leader else (follow.primary or membership.primary).host
    if doors.host != expected or doors.host == state.host:
        return
    name = server_name(expected, own_domain(membership))
    doors = msgspec.structs.replace(doors, server_name=name)
    if follow.primary != doors:
        batch.keep(LOCAL_PRIMARY, encode_body(KnownPrimary(state.term, doors)))
        batch.after_commit.append(lambda: setattr(follow, "primary", doors))
        batch.publish(RoleMoved(state.role, state.term))


def who_am_i(state: BrokerState, batch: Batch, caller: Caller, request: WhoAmI) -> WhoAmIAnswer:
    """Tell a peer how this node sees it."""
    if state.mesh_row() is not None and state.role in {"primary", "standby"}:
        member = authorize_member(state, batch, caller, request.peer)
        return WhoAmIAnswer(
            host=member.host,
            member_id=member.member_id,
            role=member.role,
            serial=request.peer.serial,
            state=member.state,
        )
    holder = authorize_key_holder(state, batch, caller, request.peer)
    return WhoAmIAnswer(holder.host, "", "primary", request.peer.serial, "active")
