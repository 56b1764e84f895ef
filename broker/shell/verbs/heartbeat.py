"""Heartbeats: a member says it lives, the primary says where it stands."""

from broker.core.doors import check_doors
from broker.core.presence import Presence
from broker.errors import NameNotAllowedError, NotAMemberError, NotFoundError
from broker.ledger.rows import MemberRow
from broker.shell.batch import Batch
from broker.shell.bundling import LOCAL_PRIMARY, KnownPrimary, current_bundle
from broker.shell.caller import Caller
from broker.shell.gossip import gossip_of, observe
from broker.shell.peers import (
    authorize_key_holder,
    authorize_member,
    own_domain,
    own_endpoint,
    primary_doors,
)
from broker.shell.served import note_served
from broker.shell.state import BrokerState
from broker.shell.succession import hear
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
HEARTBEATS_PER_S = 1000
"""What one primary should receive at most; larger meshes are asked to beat less often."""


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
    )
    state.presence.note(member.member_id, presence)
    seen = observe(state, caller.now_ms, member.host, request.gossip)
    hear(state, batch, seen, request.gossip, caller.now_ms)
    if state.serves:
        _follow_doors(state, batch, caller, (member, request.endpoint))
        if request.served_serial:
            _follow_served(state, batch, member, request)
    _, bundle = current_bundle(state, batch, caller.now)
    interval_ms = state.settings.heartbeat.interval.ms
    spread_ms = state.ledger.member_count() * 1000 // HEARTBEATS_PER_S
    return HeartbeatAnswer(
        valid=request.pin == mesh.pin,
        primary=primary_doors(state),
        term=state.term,
        bundle_sequence=bundle.bundle_sequence if bundle else 0,
        clock=caller.now,
        next_beat_ms=max(interval_ms, spread_ms),
        gossip=gossip_of(state, caller.now_ms, caller.now),
        nominated=member.nominated and state.serves,
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
        targets = tuple(state.key_holder_doors().values())
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
    )


def note_heartbeat(state: BrokerState, batch: Batch, caller: Caller, request: NoteHeartbeat) -> Ack:
    """Learn beats, the primary and a newer bundle from an answer over verified mTLS.

    The term and the primary are believed for their signed beats. Doors that the answer names help
    when the bundle does not know the new primary's yet.
    """
    if request.host not in state.key_holder_doors():
        raise NotAMemberError(f"{request.host} is not a key holder of this mesh")
    answer, follow = request.answer, state.follow
    _learn_doors(state, batch, answer)
    seen = observe(state, caller.now_ms, request.host, answer.gossip)
    hear(state, batch, seen, answer.gossip, caller.now_ms)
    if answer.nominated and not follow.nominated and state.role == "member":
        follow.nominated = True
        batch.publish(SyncWanted())
    have = (follow.bundle.head.term, follow.bundle.bundle_sequence) if follow.bundle else (0, 0)
    offered = (answer.term, answer.bundle_sequence)
    if answer.bundle_sequence and offered > max(have, follow.bundle_wanted):
        follow.bundle_wanted = offered
        batch.publish(BundleMoved(answer.bundle_sequence))
    return Ack()


def _learn_doors(state: BrokerState, batch: Batch, answer: HeartbeatAnswer) -> None:
    """Remember where the primary is; a wrong address cannot pass for it, only waste a try."""
    doors, follow = answer.primary, state.follow
    if doors is None or doors.host == state.host or answer.term < state.term:
        return
    if follow.primary != doors:
        batch.keep(LOCAL_PRIMARY, encode_body(KnownPrimary(answer.term, doors)))
        batch.after_commit.append(lambda: setattr(follow, "primary", doors))
        batch.publish(RoleMoved(state.role, answer.term))


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
