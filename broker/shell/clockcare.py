"""This node's wall clock: watched, told about, and not signed with when it is absurd."""

from broker.core.clockwatch import REFUSE_S, Doubt, Opinion, opinion_of
from broker.core.spans import span_down
from broker.errors import ClockSkewError
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.units import Millis, UnixSeconds

SAY_EVERY_MS = 600_000
RETRY_MS = 60_000
HINT = (
    "set this machine's clock (chrony, timesyncd); if it is right and no member can be heard, "
    "say so by starting the node again: certmesh down, certmesh up"
)


def watch_clock(state: BrokerState, now: UnixSeconds, now_ms: Millis) -> None:
    """Compare the wall clock with the boot-time clock and with what members say."""
    doubt = state.clock.doubt(now, now_ms, _heard(state, now))
    if doubt is None:
        state.refusals.forget(("clock",))
    elif state.refusals.passes(("clock",), now_ms, SAY_EVERY_MS):
        log(EventName.CLOCK_SKEW_DETECTED, off_s=doubt.off_s, reason=doubt.why)
    state.clock.look(now, now_ms, _heard(state, now))


def require_clock(state: BrokerState, caller: Caller) -> None:
    """Refuse to sign anything by a clock that is off by more than a day (P13).

    Raises:
        ClockSkewError: Peers or the clock's own past say so, or it is before the CA's first day.
    """
    begins = state.issuer().facts.not_before
    if caller.now < begins - REFUSE_S:
        raise ClockSkewError(
            f"this machine's clock is {span_down(begins - caller.now)} before the CA's first day",
            hint=HINT,
            retry_after_ms=RETRY_MS,
        )
    doubt = _doubt(state, caller)
    if doubt is not None and doubt.is_absurd:
        raise ClockSkewError(
            f"nothing is signed by this machine's clock: {doubt.why}",
            hint=HINT,
            retry_after_ms=RETRY_MS,
        )


def clock_warning(state: BrokerState, caller: Caller) -> str:
    """Return what a person should know of this node's clock, empty when there is nothing."""
    doubt = _doubt(state, caller)
    if doubt is None:
        return ""
    so = ", so nothing is issued or renewed" if doubt.is_absurd else ""
    return f"this machine's clock may be wrong{so}: {doubt.why}; {HINT}"


def _doubt(state: BrokerState, caller: Caller) -> Doubt | None:
    return state.clock.doubt(caller.now, caller.now_ms, _heard(state, caller.now))


def _heard(state: BrokerState, now: UnixSeconds) -> Opinion:
    return opinion_of(state.presence.skews(now))
