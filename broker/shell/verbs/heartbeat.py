"""Heartbeats: a member says it lives, the primary says where it stands."""

from broker.core.doors import check_doors
from broker.core.presence import Presence
from broker.errors import NameNotAllowedError, NotAMemberError, NotFoundError
from broker.ledger.rows import MemberRow
from broker.shell.batch import Batch
from broker.shell.bundling import LOCAL_PRIMARY, KnownPrimary, current_bundle
from broker.shell.caller import Caller
from broker.shell.peers import (
    authorize_key_holder,
    authorize_member,
    known_key_holders,
    own_endpoint,
)
from broker.shell.served import note_served
from broker.shell.state import BrokerState, Follow
from broker.wire.codec import encode_body
from broker.wire.control import Ack
from broker.wire.events import BundleMoved, RoleMoved
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
    """Note a member's presence; no journal row unless its doors or its certificate changed."""
    mesh = state.mesh()
    member = authorize_member(state, batch, caller, request.peer)
    valid = request.pin == mesh.pin
    state.presence.note(
        member.member_id,
        Presence(
            seen_at=caller.now,
            served_serial=request.served_serial,
            served=request.served,
            bundle_sequence=request.bundle_sequence,
            skew_s=request.clock - caller.now,
        ),
    )
    _follow_doors(state, batch, caller, (member, request.endpoint))
    if request.served_serial:
        _follow_served(state, batch, member, request)
    _, bundle = current_bundle(state, batch, caller.now)
    interval_ms = state.settings.heartbeat.interval.ms
    spread_ms = state.ledger.member_count() * 1000 // HEARTBEATS_PER_S
    return HeartbeatAnswer(
        valid=valid,
        primary=own_endpoint(state, mesh.domain),
        term=state.ledger.term,
        bundle_sequence=bundle.bundle_sequence if bundle else 0,
        clock=caller.now,
        next_beat_ms=max(interval_ms, spread_ms),
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
    state: BrokerState, _batch: Batch, _caller: Caller, _request: PrepareHeartbeat
) -> HeartbeatPlan:
    """Return what this node says, and to whom: every other key holder, never itself."""
    membership = state.membership
    own, follow = state.own, state.follow
    targets: tuple[Endpoint, ...] = ()
    endpoint = None
    if membership is not None and state.role != "primary" and own.present:
        targets = tuple(known_key_holders(state).values())
        domain = membership.server_name.removeprefix(f"{membership.host}.")
        endpoint = own_endpoint(state, domain)
    return HeartbeatPlan(
        targets=targets,
        pin=membership.pin if membership else "",
        served_serial=own.serial,
        served_not_after=own.not_after,
        served=own.state,
        endpoint=endpoint,
        bundle_sequence=follow.bundle.bundle_sequence if follow.bundle else 0,
        term=follow.term,
    )


def note_heartbeat(
    state: BrokerState, batch: Batch, _caller: Caller, request: NoteHeartbeat
) -> Ack:
    """Learn the primary, the term and a newer bundle from an answer over verified mTLS."""
    if request.host not in known_key_holders(state):
        raise NotAMemberError(f"{request.host} is not a key holder of this mesh")
    answer, follow = request.answer, state.follow
    if answer.term < follow.term or answer.primary is None:
        return Ack()
    moved = follow.primary != answer.primary or answer.term > follow.term
    if moved:
        batch.after_commit.append(lambda: _follow(follow, answer))
        batch.keep(LOCAL_PRIMARY, encode_body(KnownPrimary(answer.term, answer.primary)))
        batch.publish(RoleMoved(state.role, answer.term))
    have = follow.bundle.bundle_sequence if follow.bundle else 0
    if answer.bundle_sequence > max(have, follow.bundle_wanted):
        follow.bundle_wanted = answer.bundle_sequence
        batch.publish(BundleMoved(answer.bundle_sequence))
    return Ack()


def _follow(follow: Follow, answer: HeartbeatAnswer) -> None:
    follow.primary, follow.term = answer.primary, answer.term


def who_am_i(state: BrokerState, batch: Batch, caller: Caller, request: WhoAmI) -> WhoAmIAnswer:
    """Tell a peer how this node sees it."""
    if state.role == "primary":
        member = authorize_member(state, batch, caller, request.peer)
        return WhoAmIAnswer(
            host=member.host,
            member_id=member.member_id,
            role="primary" if member.role == "primary" else "member",
            serial=request.peer.serial,
            state=member.state,
        )
    holder = authorize_key_holder(state, batch, caller, request.peer)
    return WhoAmIAnswer(holder.host, "", "primary", request.peer.serial, "active")
