"""What a person should know before they ask: full sentences, worst first."""

from collections.abc import Iterable

from broker.core.phases import Phase
from broker.core.spans import span_down
from broker.shell.backup import backup_problem
from broker.shell.caller import Caller
from broker.shell.clockcare import clock_warning
from broker.shell.oldkey import way_back
from broker.shell.outlook import troubled_lines
from broker.shell.restored import restored_warning
from broker.shell.state import BrokerState
from broker.wire.node import MemberLine, OutageView
from broker.wire.supervision import ProcessLine

WARNINGS_MAX = 50
DOWN = frozenset({"FATAL", "BACKOFF", "EXITED", "STOPPED", "UNKNOWN"})
"""What supervisord says of a process that does not do its work."""

ENDS_TOLD = 3
"""Quick ends in a row that a person should know of."""

CA_END_S = 365 * 86_400
"""A new CA has to reach every member before the old one ends; some come round once a season."""
REASON_LENGTH_MAX = 400
TEXT_LENGTH_MAX = 1024
"""Bound of `Text`: a longer warning would make the whole status unreadable to its receiver."""


def warnings_of(state: BrokerState, outage: OutageView | None, caller: Caller) -> tuple[str, ...]:
    """Return the warnings of this node and, on a CA node, of its mesh."""
    found = [*_of_node(state, caller), *_of_processes(state, caller)]
    if state.role == "primary":
        for line in troubled_lines(state, caller.now):
            found.extend(_of_member(line, caller))
    if outage is not None:
        found.extend(_of_outage(outage, found))
    if len(found) > WARNINGS_MAX:
        found[WARNINGS_MAX:] = [f"and {len(found) - WARNINGS_MAX} more warnings"]
    return tuple(text[:TEXT_LENGTH_MAX] for text in found)


def _of_node(state: BrokerState, caller: Caller) -> Iterable[str]:
    if state.keys.state == "locked" and state.role == "standby":
        yield "the CA key is locked, this standby cannot take over: certmesh ca unlock"
    elif state.keys.state == "locked":
        yield "the CA key is locked, nothing can be issued or renewed: certmesh ca unlock"
    yield from filter(None, (restored_warning(state), backup_problem(state, caller.now)))
    yield from filter(None, (clock_warning(state, caller), _ca_end(state, caller)))
    yield from _of_succession(state, caller)
    own = state.own
    if state.membership is not None and own.known:
        if not own.present:
            yield "this node has no certificate yet: certmesh ps shows what the renewal waits for"
        elif own.not_after is not None and own.not_after <= caller.now:
            yield f"this node's certificate has expired, no peer takes it: {way_back(state)}"
        elif own.state in {"stale", "failed"}:
            yield f"this node serves an old certificate ({own.detail}): certmesh hook log"
    if state.own_failure and state.own_failure != own.detail:
        yield f"renewing this node fails: {state.own_failure}"


def _ca_end(state: BrokerState, caller: Caller) -> str:
    issuer = state.keys.issuer
    left_s = CA_END_S if issuer is None else issuer.not_after - caller.now
    if left_s >= CA_END_S:
        return ""
    when = f"ends in {span_down(left_s)}" if left_s > 0 else "has ended, nothing can be issued"
    return f"the CA's certificate {when}: certmesh ca rollover start"


def _of_succession(state: BrokerState, caller: Caller) -> Iterable[str]:
    election = state.election
    if election is None:
        return
    powers = election.powers(state.surroundings(), caller.now_ms)
    if state.role == "primary" and powers != "full":
        yield f"this primary refuses enrollment, policy and roles: {powers}"
    if election.phase is Phase.SUSPECTING:
        silent_s = election.silent_ms(caller.now_ms) // 1000
        leader = election.leader.host if election.leader else "the primary"
        why = f"; this standby holds back: {election.withheld}" if election.withheld else ""
        yield f"{leader} has been silent for {silent_s} s{why}"
    row = state.rollover()
    if state.role == "primary" and row is not None and row.phase == "trusting":
        yield "the next CA is announced and does not sign yet: certmesh ca rollover status"
    lag = state.replication.behind
    if state.role == "standby" and lag is not None and lag > state.settings.standby.lag_warn:
        yield f"this standby is {lag} journal rows behind: certmesh standby sync"
    for doubt in state.witnesses.contradicted_by() if state.role == "primary" else ():
        yield (
            f"{doubt.host} remembers row {doubt.head.sequence} of the audit trail, and it is not "
            "here: certmesh audit verify"
        )
    if state.role == "primary" and (reviews := state.ledger.review_count()):
        yield f"{reviews} decisions of a merge wait for a look: certmesh review list"


def _of_processes(state: BrokerState, caller: Caller) -> Iterable[str]:
    for instance in state.workers.outdated(caller.now_ms):
        yield (
            f"{instance} is of another release than this broker and starts again by itself; if it "
            "stays so, the broker is the older one: certmesh down, certmesh up"
        )
    down = {line.program: line for line in state.follow.processes.values() if line.state in DOWN}
    for worker in state.workers.everyone():
        if worker.liveness in {"suspect", "dead"} and worker.instance not in down:
            yield f"process {worker.instance} is {worker.liveness}: certmesh ps"
        elif worker.liveness == "ready" and worker.beat.last_error:
            yield f"{worker.instance}: {worker.beat.last_error}"
    for line in down.values():
        yield f"process {line.program} is {line.state}{_why(line)}: see log/{line.program}.log"
    for line in state.follow.processes.values():
        if line.program not in down and line.ends >= ENDS_TOLD:
            # Between two deaths it looks healthy; until it has settled nobody should believe that.
            yield f"process {line.program} dies again and again{_why(line)}: certmesh ps"


def _why(line: ProcessLine) -> str:
    """Return how a process that does not run ended, and when it is tried again."""
    said = [line.last_exit] if line.last_exit else []
    if line.next_start_ms is not None:
        said.append(f"next start in {span_down(line.next_start_ms // 1000)}")
    return f" ({'; '.join(said)})" if said else ""


def _of_member(line: MemberLine, caller: Caller) -> Iterable[str]:
    """Yield what is wrong with one active member; of a silent one, what it said last."""
    host = line.host
    if line.delivery == "expired":
        yield f"{host}'s certificate has expired: certmesh member show {host}"
        return
    if line.served in {"stale", "failed"} or line.delivery == "stale":
        yield _not_served(line, caller)
    if line.last_error and line.last_error != line.served_detail:
        yield f"renewing {host} fails: {line.last_error}"
    if _is_overdue(line, caller):
        yield f"{host} is due for renewal and was not renewed yet"


def _not_served(line: MemberLine, caller: Caller) -> str:
    host = line.host
    if line.served not in {"stale", "failed"}:
        return f"{host} still serves its certificate before the newest: certmesh member show {host}"
    why = str(line.served)
    if line.served_at is not None:
        why += f" {span_down(max(0, caller.now - line.served_at))} ago"
    if line.served_detail:
        why += f": {line.served_detail[:REASON_LENGTH_MAX]}"
    first = line.served == "failed" and line.served_serial == line.serial
    what = "has not taken its newest certificate" if first else "serves an old certificate"
    return f"{host} {what} ({why}): certmesh hook log, on {host}"


def _of_outage(outage: OutageView, said: list[str]) -> Iterable[str]:
    """Yield how the budget is missed; what to do about a member only if nothing says it yet."""
    advice, host, budget = outage.advice, outage.weakest, span_down(outage.budget_s)
    if outage.met or not host:
        yield from filter(None, (advice,))
        return
    about = (f"{host} ", f"{host}'s ", f"renewing {host} ")
    known = outage.planned_s >= outage.budget_s and any(text.startswith(about) for text in said)
    many = outage.short_members != 1
    whom = f"{outage.short_members} members end" if many else f"{host} ends"
    first = f", {host} first" if many else ""
    what = f"the outage budget of {budget} is not met: {whom} inside it{first}"
    yield what if known or not advice else f"{what}: {advice}"


def _is_overdue(line: MemberLine, caller: Caller) -> bool:
    """Whether more than a third of what remained at the due date has passed."""
    if line.renew_at is None or line.not_after is None:
        return False
    return caller.now > line.renew_at + (line.not_after - line.renew_at) / 3
