"""Announced primaries to try: what mDNS finds is only where to knock."""

from broker.core.names import server_name
from broker.shell.peers import own_domain, split_address
from broker.shell.state import BrokerState
from broker.shell.trust import anchors_of, pins_of
from broker.units import Millis
from broker.wire.node import Endpoint

STRANGERS_MAX = 4
INSTANCE = "certmesh-ca-"


def announced_primaries(state: BrokerState, now_ms: Millis) -> tuple[Endpoint, ...]:
    """Return announced primaries to try when every known key holder has been silent for long.

    mDNS proves nothing: TLS proves the name, and a signed beat that it leads. A member that was
    away while the role moved twice finds its mesh again this way.
    """
    election, membership = state.election, state.membership
    if election is None or membership is None:
        return ()
    if election.silent_ms(now_ms) < state.settings.failover.grace.ms:
        return ()
    known = {state.host, *state.key_holder_doors()}
    _, mesh_port = split_address(state.settings.listen.mesh)
    pins = pins_of(anchors_of(membership))
    found = {
        hint.instance.removeprefix(INSTANCE): hint
        for hint in state.follow.hints
        if hint.role == "primary" and hint.fingerprint in pins
    }
    return tuple(
        Endpoint(
            host, hint.addresses, hint.port, mesh_port, server_name(host, own_domain(membership))
        )
        for host, hint in found.items()
        if host and host not in known
    )[:STRANGERS_MAX]
