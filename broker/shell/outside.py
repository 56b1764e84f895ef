"""Who would get no certificate under a policy: a walk over the whole roster, in small steps.

A hundred thousand members are too many for one turn of the loop. Each step looks at a bounded
number, and between two of them the loop serves whoever waits.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from broker.core.policy import outside_of
from broker.errors import BusyError, MeshError, StorageError
from broker.ledger.sqlite import Ledger
from broker.shell.batch import Batch
from broker.shell.caller import DEFERRED, Caller, Deferred
from broker.shell.state import BrokerState
from broker.wire.codec import fault_of
from broker.wire.messages import AnyReply
from broker.wire.policy import OutsideLine, Policy

STEP_MEMBERS = 200
"""Two to five milliseconds on a small board."""
STEPS_AT_ONCE = 2
"""A mesh of this many steps is answered in the same drain."""
LISTED_MAX = 100
"""Lines in an answer; the others are counted."""


@dataclass(slots=True)
class Walk:
    """What was found so far; `after` is the member id where the next step begins."""

    policy: Policy
    domain: str
    after: str = ""
    total: int = 0
    _found: list[OutsideLine] = field(default_factory=list)

    @property
    def lines(self) -> tuple[OutsideLine, ...]:
        """The first `LISTED_MAX` members outside, by host."""
        return tuple(sorted(self._found, key=lambda line: (line.host, line.member_id))[:LISTED_MAX])

    def step(self, ledger: Ledger) -> bool:
        """Look at the next members; return whether these were the last."""
        page = ledger.names_page(self.after, STEP_MEMBERS)
        for member_id, host, sans, active in page:
            outside = outside_of(self.policy, self.domain, sans) if active else ()
            if outside:
                self.total += 1
                self._found.append(OutsideLine(host, member_id, outside))
        self._found = list(self.lines)
        if page:
            self.after = page[-1][0]
        return len(page) < STEP_MEMBERS


Conclude = Callable[[Batch, Walk], AnyReply]


def walk_members(
    state: BrokerState, batch: Batch, caller: Caller, walk: Walk, conclude: Conclude
) -> AnyReply | Deferred:
    """Return what `conclude` makes of the walk: now, or later when the mesh is large.

    `conclude` runs in the drain that ends the walk and may write; what it relied on when the walk
    began it has to check again.

    Raises:
        BusyError: Too much slow work waits already.
    """
    if caller.request_id in state.waiting:
        state.wait(caller, caller.now_ms + caller.ttl_ms)
        return DEFERRED
    for _ in range(STEPS_AT_ONCE):
        if walk.step(state.ledger):
            return conclude(batch, walk)
    if not _later(state, caller, walk, conclude):
        raise _busy()
    state.wait(caller, caller.now_ms + caller.ttl_ms)
    return DEFERRED


def _later(state: BrokerState, caller: Caller, walk: Walk, conclude: Conclude) -> bool:
    # The thread has nothing to do: its queue is the way back to the loop behind what waits there.
    return state.offloop.submit(
        lambda: None, lambda batch, _: _go_on(state, batch, caller, (walk, conclude))
    )


def _go_on(state: BrokerState, batch: Batch, caller: Caller, what: tuple[Walk, Conclude]) -> None:
    if caller.request_id not in state.waiting:
        return  # the caller's patience is over, and nothing was decided
    try:
        reply = _step_or_conclude(state, batch, caller, what)
    except StorageError as failure:
        state.resolve(caller.request_id, fault_of(failure))
        raise
    except MeshError as refusal:
        state.resolve(caller.request_id, fault_of(refusal))
        return
    if reply is None:
        return
    batch.after_commit.append(lambda: state.resolve(caller.request_id, reply))
    batch.on_void.append(
        lambda: state.resolve(caller.request_id, fault_of(StorageError("nothing was changed")))
    )


def _step_or_conclude(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[Walk, Conclude]
) -> AnyReply | None:
    walk, conclude = what
    if walk.step(state.ledger):
        return conclude(batch, walk)
    if not _later(state, caller, walk, conclude):
        raise _busy()
    return None


def _busy() -> BusyError:
    return BusyError("too much slow work waits already", retry_after_ms=1000)
