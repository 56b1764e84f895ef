"""This node's own certificate is over: who could take its old key for a new one.

A member that slept through a failover knows where the primary was. So it knocks at every door that
may know more, and TLS proves at each that it is of this mesh; who leads now the door itself says.
"""

from collections.abc import Iterator

from broker.shell.announced import announced_primaries
from broker.shell.caller import Caller
from broker.shell.peers import primary_doors
from broker.shell.state import BrokerState
from broker.units import Millis, UnixSeconds
from broker.wire.node import Endpoint
from broker.wire.work import RenewOwn

DOORS_MAX = 8
"""Doors of one attempt; each may cost the patience of a whole call."""


def needs_old_key(state: BrokerState, now: UnixSeconds) -> bool:
    """Return whether this node can only renew with its old key: no peer takes its certificate.

    A primary never does: it signs for itself.
    """
    return is_over(state, now) and state.role != "primary"


def is_over(state: BrokerState, now: UnixSeconds) -> bool:
    """Return whether this node's own certificate has expired, as OpenSSL sees it."""
    own = state.own
    return own.present and own.not_after is not None and own.not_after <= now


def by_old_key(state: BrokerState, caller: Caller, sans: tuple[str, ...]) -> RenewOwn:
    """Return the work of renewing this node with its old key."""
    return RenewOwn(
        host=state.host,
        sans=sans,
        via_broker=False,
        primary=primary_doors(state),
        by_old_key=True,
        doors=doors_to_try(state, caller.now_ms),
        fresh=state.force_renewal,
    )


def doors_to_try(state: BrokerState, now_ms: Millis) -> tuple[Endpoint, ...]:
    """Return the doors at which to ask, the most likely primary first."""
    found: dict[str, Endpoint] = {}
    for door in _known(state, now_ms):
        if door.host != state.host and door.addresses and door.enroll_port:
            found.setdefault(door.host, door)
    return tuple(found.values())[:DOORS_MAX]


def _known(state: BrokerState, now_ms: Millis) -> Iterator[Endpoint]:
    first = primary_doors(state)
    if first is not None:
        yield first
    yield from state.key_holder_doors().values()
    yield from announced_primaries(state, now_ms)
    if state.membership is not None:
        yield state.membership.primary


def way_back(state: BrokerState) -> str:
    """Return what happens, or has to be done, about a certificate of this node that is over."""
    if state.role == "primary":
        return "it renews as soon as the CA key is open and this node serves"
    if state.own_failure:
        return "renewing with its old key failed, see below; it goes on trying"
    return "it renews with its old key, if the policy has an expired_grace"
