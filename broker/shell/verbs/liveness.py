"""READY, BEAT, GOODBYE."""

from broker.errors import UnsupportedVersionError
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.shell.verbs.work import give_back
from broker.wire.codec import WIRE_VERSION
from broker.wire.control import Ack
from broker.wire.liveness import Beat, BeatAnswer, Goodbye, Ready, Welcome

BEATS_PER_PROMISE = 3
"""A worker may lose two beats before it is suspect."""


def ready(state: BrokerState, batch: Batch, caller: Caller, request: Ready) -> Welcome:
    """Introduce a worker; an earlier life of the same instance loses its leases."""
    if request.wire != WIRE_VERSION:
        raise UnsupportedVersionError(
            f"{request.instance} speaks wire version {request.wire}, this broker {WIRE_VERSION}",
            hint="restart the pool after the upgrade: certmesh down; certmesh up",
        )
    for earlier in state.workers.welcome(caller.identity, request, caller.now_ms, caller.key):
        give_back(batch, state.leases.lost_with(earlier))
    promise_ms = state.settings.broker.worker_dead_after.ms
    return Welcome(
        broker_boot_id=state.boot_id,
        beat_every_ms=max(50, promise_ms // BEATS_PER_PROMISE),
        node=state.host,
    )


def beat(state: BrokerState, _batch: Batch, caller: Caller, request: Beat) -> BeatAnswer:
    """Note progress."""
    known = state.workers.beat(caller.identity, request, caller.now_ms)
    return BeatAnswer(broker_boot_id=state.boot_id, registered=known)


def goodbye(state: BrokerState, batch: Batch, caller: Caller, _request: Goodbye) -> Ack:
    """Note a polite stop; leases return at once."""
    state.workers.leave(caller.identity)
    give_back(batch, state.leases.lost_with(caller.identity))
    return Ack()
