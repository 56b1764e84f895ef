"""Failed attempts across restarts: saved in batches beside the journal, taken up at start.

Nothing here costs an fsync per attempt: what a crash loses are the failures of a few seconds.
"""

from broker.clock import boottime_ms, wall_s
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.enrollment import Join

LOCAL_ATTEMPTS = "attempts"


def restore_attempts(state: BrokerState) -> None:
    """Take up what the last life of this broker knew; what cannot be read closes the doors."""
    raw = state.ledger.local_get(LOCAL_ATTEMPTS)
    if raw is not None and not state.limiter.restore(raw, boottime_ms(), wall_s()):
        wait = state.settings.enrollment.attempts_wait
        log(
            EventName.STORAGE_FAILED,
            detail=f"the record of failed attempts is damaged: no codes for {wait.s} s",
        )


def note_bad_credential(state: BrokerState, caller: Caller, request: Join) -> None:
    """Count a join that proved nothing, and say when its source has to wait from now on."""
    invited = bool(request.invite_secret)
    locked = state.limiter.join_failed(request.source, request.host, caller.now_ms, invited=invited)
    if locked:
        log(EventName.AUTH_THROTTLED, source=request.source, method="invite" if invited else "totp")


def flush_attempts(state: BrokerState, batch: Batch, now: UnixSeconds) -> None:
    """Save what changed since the last time."""
    raw = state.limiter.take_dirty(boottime_ms(), now)
    if raw:
        batch.on_void.append(state.limiter.mark_dirty)
        batch.keep(LOCAL_ATTEMPTS, raw)
