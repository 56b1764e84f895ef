"""The seats at the broker's local sockets: who may take one, and what a refusal leaves behind."""

from msgspec.structs import replace

from broker.core.seats import Seats, read_peer
from broker.errors import ForbiddenError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.wire.facts import ActionRefused
from broker.wire.liveness import Ready

REFUSAL_EVERY_MS = 10_000
"""The same refusal of the same user is one line of the log, and one row, in this time."""


def seated(
    state: BrokerState, batch: Batch, caller: Caller, request: Ready, seats: Seats | None
) -> Ready:
    """Return a local introduction as it is taken here: with the pid that the kernel says.

    Raises:
        ForbiddenError: This user may not speak as that service; written down.
    """
    if seats is None or caller.key:
        return request
    try:
        peer = seats.check(request.service, caller.address)
    except ForbiddenError as refusal:
        _note(state, batch, caller, request, refusal)
        raise
    return replace(request, pid=peer.pid) if peer.pid else request


def _note(
    state: BrokerState, batch: Batch, caller: Caller, request: Ready, refusal: ForbiddenError
) -> None:
    peer = read_peer(caller.address)
    actor = f"uid {peer.uid}" if peer else "unknown"
    key = ("seat", actor, request.service.value)
    if not state.refusals.passes(key, caller.now_ms, REFUSAL_EVERY_MS):
        return
    log(EventName.WORKER_REFUSED, service=request.service.value, user=actor, code=refusal.code)
    if state.serves:
        batch.append(ActionRefused("ready", request.service.value, refusal.code.value), actor)
