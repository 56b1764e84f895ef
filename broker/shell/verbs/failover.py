"""Probes between key holders: what to announce and claim, whom to ask, what was proved.

Hints of mDNS are kept for people. Only claims over verified mutual TLS and signed statements reach
the election.
"""

import msgspec

from broker.errors import NotAMemberError
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.gossip import gossip_of, observe
from broker.shell.peers import authorize_key_holder, own_endpoint, split_address
from broker.shell.state import BrokerState
from broker.shell.succession import hear
from broker.units import Millis
from broker.wire.claims import Claim
from broker.wire.control import Ack
from broker.wire.failover import (
    Announcement,
    FailoverPlan,
    Hello,
    HelloAnswer,
    ListPeers,
    PeersView,
    PlanFailover,
    ReportSightings,
)
from broker.wire.node import Endpoint
from broker.wire.roster import Peer

HINTS_MAX = 64
ADDRESSES_MAX = 8


def plan_failover(
    state: BrokerState, _batch: Batch, caller: Caller, _request: PlanFailover
) -> FailoverPlan:
    """Return the announcement of a serving primary with a certificate, and what probes say."""
    membership = state.membership
    claim = own_claim(state, caller.now_ms)
    known = state.key_holder_doors().values() if membership and state.own.present else ()
    return FailoverPlan(
        announce=_announcement(state),
        targets=tuple(_with_peers(state, target) for target in known) if claim else (),
        discovery=state.settings.discovery.mdns,
        pin=membership.pin if membership else "",
        host=state.host,
        claim=claim,
        gossip=gossip_of(state, caller.now_ms, caller.now),
    )


def hello(state: BrokerState, batch: Batch, caller: Caller, request: Hello) -> HelloAnswer:
    """Take in a key holder's claim and answer with this node's own.

    Raises:
        NotAMemberError: The caller is no key holder, claims for another host, or this node is none.
        RevokedError: The caller was revoked.
    """
    if not (request.claim.role == "primary" and _was_removed(state, request.peer)):
        holder = authorize_key_holder(state, batch, caller, request.peer)
        if request.claim.host != holder.host:
            raise NotAMemberError(f"{holder.host} claims to be {request.claim.host[:64]!r}")
        seen = observe(state, caller.now_ms, holder.host, request.gossip, request.claim)
        hear(state, batch, seen, request.gossip, caller.now_ms)
    claim = own_claim(state, caller.now_ms)
    if claim is None:
        raise NotAMemberError(f"{state.host} is not a key holder of this mesh")
    return HelloAnswer(claim, gossip_of(state, caller.now_ms, caller.now))


def _was_removed(state: BrokerState, peer: Peer) -> bool:
    """Whether a member without the role asks: its claim counts for nothing, it gets an answer.

    A former primary that was removed while it was away learns only so that its term is over.
    """
    found = state.ledger.certificate(peer.serial) if state.mesh_row() is not None else None
    if found is None or found[1].fingerprint != peer.fingerprint:
        return False
    return found[0].state == "active" and found[0].role == "member" and found[1].state != "revoked"


def report_sightings(
    state: BrokerState, batch: Batch, caller: Caller, request: ReportSightings
) -> Ack:
    """Let the election hear what the probes proved, and keep the round for people."""
    state.follow.sightings = request.sightings[:HINTS_MAX]
    state.follow.hints = request.hints[:HINTS_MAX]
    if state.election is not None:
        state.election.fence.probed()
    holders = state.key_holder_doors()
    for sighting in state.follow.sightings:
        claim = sighting.claim
        if claim is None or claim.host != sighting.host or sighting.host not in holders:
            continue
        seen = observe(state, caller.now_ms, sighting.host, sighting.gossip, claim)
        hear(state, batch, seen, sighting.gossip, caller.now_ms)
    return Ack()


def list_peers(
    state: BrokerState, _batch: Batch, _caller: Caller, _request: ListPeers
) -> PeersView:
    """Return what the failover worker last saw."""
    plain = tuple(
        msgspec.structs.replace(s, gossip=type(s.gossip)()) for s in state.follow.sightings
    )
    return PeersView(plain, state.follow.hints)


def own_claim(state: BrokerState, now_ms: Millis) -> Claim | None:
    """Return what this key holder says of itself; None on a node without the role."""
    election = state.election
    if election is None or state.role not in {"primary", "standby"}:
        return None
    head, reason = state.ledger.head, election.promotable(state.surroundings())
    standby = state.role == "standby"
    return Claim(
        host=state.host,
        role=state.role,
        serving=election.serving,
        term=election.term if not standby else state.term,
        highest_term=election.highest_term,
        version_term=head.term,
        sequence=head.sequence,
        hash=head.hash,
        promotable=standby and not reason,
        reason=reason if standby else "",
        called=election.called(now_ms),
    )


def _with_peers(state: BrokerState, target: Endpoint) -> Endpoint:
    """Add the addresses of the settings that have the target's port; TLS proves who answers."""
    known = [split_address(peer) for peer in state.settings.discovery.peers]
    extra = (host for host, port in known if port == target.mesh_port)
    addresses = tuple(dict.fromkeys((*target.addresses, *extra)))[:ADDRESSES_MAX]
    return msgspec.structs.replace(target, addresses=addresses)


def _announcement(state: BrokerState) -> Announcement | None:
    mesh = state.mesh_row()
    ready = state.serves and state.keys.issuer is not None and state.own.present
    if mesh is None or not ready:
        return None
    doors = own_endpoint(state, mesh.domain)
    return Announcement(
        instance=f"certmesh-ca-{state.host}",
        port=doors.enroll_port,
        addresses=doors.addresses,
        server=f"{state.host.split('.')[0]}.local.",
        txt={
            "role": "primary",
            "fingerprint": mesh.pin,
            "profile": "approval" if mesh.approval else "open",
            "auth": "invite,totp" if mesh.enrollment_open else "invite",
            "term": str(state.ledger.term),
        },
    )
