"""The steps in order, what each needs, and the run through them."""

from collections.abc import Callable
from dataclasses import dataclass

from broker.cli.demo.failure import StepError, pause
from broker.cli.demo.stage import Stage
from broker.cli.demo.steps_break import kill_worker
from broker.cli.demo.steps_end import audit, revoke_member
from broker.cli.demo.steps_failover import bring_back, kill_primary, make_standby, renew_at_heir
from broker.cli.demo.steps_join import join_with_code, join_with_invite
from broker.cli.demo.steps_serve import renew_with_hook, speak_mutual_tls
from broker.cli.demo.steps_start import check_authority, start_nodes
from broker.clock import boottime_ms


@dataclass(frozen=True, slots=True)
class Step:
    """One claim: its number and name for ever, the steps it stands on, and what proves it."""

    number: int
    name: str
    needs: tuple[int, ...]
    prove: Callable[[Stage], str]


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a step."""

    number: int
    name: str
    passed: bool
    took_s: float
    detail: str


STEPS = (
    Step(1, "start nodes", (), start_nodes),
    Step(2, "create mesh", (1,), check_authority),
    Step(3, "node-b joins", (2,), join_with_invite),
    Step(4, "node-c joins", (2,), join_with_code),
    Step(5, "mutual TLS", (3, 4), speak_mutual_tls),
    Step(6, "renewal + hook", (3, 4), renew_with_hook),
    Step(7, "kill a worker", (1,), kill_worker),
    Step(8, "hot standby", (3,), make_standby),
    Step(9, "kill the primary", (4, 8), kill_primary),
    Step(10, "renew at the heir", (5, 9), renew_at_heir),
    Step(11, "node-a returns", (9,), bring_back),
    Step(12, "revoke node-c", (4,), revoke_member),
    Step(13, "audit", (2,), audit),
)


def chosen(only: frozenset[int]) -> tuple[Step, ...]:
    """Return the wanted steps and all they stand on, in order; nothing wanted means all."""
    wanted = only or frozenset(step.number for step in STEPS)
    for step in reversed(STEPS):
        if step.number in wanted:
            wanted |= frozenset(step.needs)
    return tuple(step for step in STEPS if step.number in wanted)


def play(stage: Stage) -> list[Result]:
    """Run the chosen steps until one fails."""
    results: list[Result] = []
    for step in chosen(stage.options.only):
        results.append(_prove(stage, step))
        if not results[-1].passed:
            break
        if stage.options.slow_s:
            pause(stage.options.slow_s)
    return results


def _prove(stage: Stage, step: Step) -> Result:
    began_ms = boottime_ms()
    try:
        detail = step.prove(stage)
    except StepError as error:
        took_s = (boottime_ms() - began_ms) / 1000
        stage.board.failed(step.number, step.name, error, took_s)
        return Result(step.number, step.name, passed=False, took_s=took_s, detail=error.why)
    took_s = (boottime_ms() - began_ms) / 1000
    stage.board.passed(step.number, step.name, detail, took_s)
    return Result(step.number, step.name, passed=True, took_s=took_s, detail=detail)
