"""A certificate of this node that is on disk and not in service: tried again until it is.

Hooks and ports fail for reasons that people mend, at any time. So such a delivery is due at once
and rests between attempts like any renewal that fails; what the attempts bring into service is on
disk already, and no certificate is signed for them.
"""

from broker.core.delivery_state import GOOD
from broker.core.own import OwnCertificate
from broker.core.renewal import Backoff
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.shell.turns import OWN
from broker.units import UnixSeconds
from broker.wire.ids import ServedState

UNSERVED: frozenset[ServedState] = frozenset({"failed", "stale"})


def wanted_at(state: BrokerState, due_at: UnixSeconds | None) -> UnixSeconds | None:
    """Return when this node wants an attempt: at `due_at`, or now while a delivery fails."""
    unserved = state.own.present and state.own.state in UNSERVED
    return UnixSeconds(0) if due_at is not None and unserved else due_at


def rest(state: BrokerState, caller: Caller) -> None:
    """Let this node's own attempts pause after one more that did not serve."""
    renewal, own = state.settings.renewal, state.own
    state.backoff[OWN] = state.backoff.get(OWN, Backoff()).after_failure(
        caller.now_ms,
        min_ms=renewal.backoff_min.ms,
        max_ms=renewal.backoff_max.ms,
        left_s=own.not_after - caller.now if own.not_after is not None else 0,
    )


def follow_delivery(state: BrokerState, caller: Caller, before: OwnCertificate) -> None:
    """Take notice of how a delivery ended that nobody leased as a renewal: a push, or a look.

    The first report after a start of this broker counts as news too.
    """
    own = state.own
    if (own.serial, own.state) == (before.serial, before.state) or state.leases.is_held(OWN):
        return
    if own.state in UNSERVED:
        rest(state, caller)
    elif own.state in GOOD and (before.state in UNSERVED or _is_younger(own, before)):
        state.backoff.pop(OWN, None)
        if state.own_failure and not state.serves:
            log(EventName.RENEWAL_RECOVERED, host=state.host, after=state.own_failure)
        state.own_failure = ""


def _is_younger(own: OwnCertificate, before: OwnCertificate) -> bool:
    """Whether a newer certificate came: what kept this node from renewing itself is over."""
    return (own.not_after or 0) > (before.not_after or 0)
