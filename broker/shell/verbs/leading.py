"""Who leads: an operator calls a standby, confirms a caretaker, or lets a primary step down."""

from broker.core.phases import Phase
from broker.errors import CALockedError, ConflictError, NotPrimaryError, WithheldError
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.handover import begin_leaving, choose_successor, say_goodbye
from broker.shell.restored import go_on
from broker.shell.standing import store_standing, tell_moved
from broker.shell.state import BrokerState
from broker.shell.succession import carry_out, confirm
from broker.wire.events import RoleMoved
from broker.wire.standby import PromoteHere, PromotionAnswer, StepDown, StepDownAnswer


def promote_here(
    state: BrokerState, batch: Batch, caller: Caller, request: PromoteHere
) -> PromotionAnswer:
    """Make this node the primary: ask the living one, or replace a silent one.

    Raises:
        ConflictError: It is the primary with full powers already.
        CALockedError: It could sign nothing.
        WithheldError: It is not ready; `force` accepts what is only risky.
        NotPrimaryError: It is no standby.
    """
    election = state.election
    if election is None or state.role not in {"primary", "standby"}:
        raise NotPrimaryError(
            f"{state.host} holds no CA key",
            hint=f"on the primary: certmesh standby nominate {state.host}",
        )
    if state.restored is not None and state.restored.held:
        return _resume(state, batch, caller, request)
    around = state.surroundings()
    if state.role == "primary":
        return _confirm_caretaker(state, batch, request)
    reason = election.promotable(around)
    if reason == "locked":
        raise CALockedError(f"the CA key on {state.host} is locked", hint="certmesh ca unlock")
    if reason and (reason == around.unready or not request.force):
        raise WithheldError(
            f"{state.host} cannot take over: {reason}", hint="certmesh standby sync, or --force"
        )
    silent_ms = election.silent_ms(caller.now_ms)
    lives = silent_ms < election.rules.timing.suspect_ms and not request.force
    leader = election.leader.host if election.leader else "nobody"
    detail = f"{leader} lives and is asked to hand over" if lives else f"{leader} is silent"
    if request.dry_run:
        return PromotionAnswer("would", election.highest_term + 1, detail)
    election.call(caller.now_ms, force=request.force)
    carry_out(state, batch, election.tick(around, caller.now_ms), caller.now_ms)
    batch.publish(RoleMoved(state.role, state.term))
    outcome = "promoted" if state.serves else "asked"
    return PromotionAnswer(
        outcome, election.term if state.serves else election.highest_term, detail
    )


def step_down(
    state: BrokerState, batch: Batch, caller: Caller, request: StepDown
) -> StepDownAnswer:
    """Hand the role to a ready standby.

    Raises:
        NotPrimaryError: This node does not serve.
        ConflictError: Nobody is ready, or not the wanted one.
    """
    state.mesh()
    successor = choose_successor(state, request.successor, caller.now_ms)
    if request.closing:
        say_goodbye(state, batch, successor, caller.now_ms)
    else:
        cause = f"asked by {request.operator}"
        begin_leaving(state, batch, successor, cause, caller.now_ms)
    return StepDownAnswer(successor, state.ledger.term)


def _resume(
    state: BrokerState, batch: Batch, caller: Caller, request: PromoteHere
) -> PromotionAnswer:
    """Let a restored node lead although the last primary is silent: a person knows that it is gone.

    Nothing overrules a primary that answers, and nobody is left unasked.
    """
    book, election = state.restored, state.election
    assert book is not None
    assert election is not None
    verdict, detail = book.collecting.verdict, book.collecting.waits_for
    if verdict in {"asking", "led"} or not request.force:
        hint = "wait until all were asked" if verdict == "asking" else "certmesh status"
        if verdict == "silent":
            hint = "if it is gone for good: certmesh standby promote --force"
        raise WithheldError(f"{state.host} {book.held}", hint=hint)
    if request.dry_run:
        return PromotionAnswer("would", election.highest_term + 1, detail)
    go_on(state, batch, request.operator, caller.now_ms)
    return PromotionAnswer("promoted", election.term, detail)


def _confirm_caretaker(state: BrokerState, batch: Batch, request: PromoteHere) -> PromotionAnswer:
    election = state.election
    assert election is not None
    if election.phase is not Phase.CARETAKING:
        raise ConflictError(f"{state.host} is the primary already")
    if request.dry_run:
        return PromotionAnswer("would", election.term, "the caretaker gets its full powers")
    moved = election.confirm(f"confirmed by {request.operator}")
    tell_moved(state, batch, moved)
    confirm(state, batch, moved.detail, request.operator)
    store_standing(state, batch)
    return PromotionAnswer("confirmed", election.term)
