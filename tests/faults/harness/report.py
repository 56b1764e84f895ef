"""What the harness prints: one line per seed, everything about a failure, figures at the end."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from tests.faults.harness.mesh import Node
from tests.faults.harness.promises import Told
from tests.faults.harness.run import Verdict

TAIL_LINES = 12
TOLD_LINES = 30
LOGS = ("broker", "gateway", "console", "watchdog", "failover", "supervisord")
WRONG_MAX = 12


def line_of(verdict: Verdict) -> str:
    """Return one line for a seed."""
    word = "FAIL" if verdict.wrong else "ok  "
    settled = f"{verdict.settled.settled_ms / 1000:4.1f}" if verdict.settled else "   -"
    harms = "; ".join(verdict.harms)
    plan = verdict.plan
    term = max(verdict.terms, default=0)
    return (
        f"{word} seed {plan.seed:<6} {plan.size} nodes term {term} {verdict.answers:4} answers "
        f"settled {settled} s took {verdict.took_ms / 1000:4.1f} s  {harms}"
    )


def failure_of(verdict: Verdict, told: Sequence[Told], nodes: Iterable[Node]) -> Iterator[str]:
    """Yield everything about a seed that failed."""
    yield from verdict.plan.lines()
    for harm in verdict.harms:
        yield f"  done     {harm}"
    for wrong in verdict.wrong[:WRONG_MAX]:
        yield f"  WRONG    {wrong}"
    if len(verdict.wrong) > WRONG_MAX:
        yield f"  WRONG    and {len(verdict.wrong) - WRONG_MAX} more"
    for item in told[-TOLD_LINES:]:
        yield f"  told     {item}"
    for node in nodes:
        for program in LOGS:
            yield from _tail(node.home / "log" / f"{program}.log")
    yield f"  again    python -m tests.faults --seed {verdict.plan.seed} --keep"


def _tail(log: Path) -> Iterator[str]:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return
    yield f"  --- {log}"
    yield from (f"      {line[:400]}" for line in lines[-TAIL_LINES:])


def figures_of(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yield one line per injector: how often, and how long until the mesh was content again.

    Only seeds with one fault count here, so that each figure belongs to one cause.
    """
    settled: dict[str, list[int]] = defaultdict(list)
    served: dict[str, list[int]] = defaultdict(list)
    used: dict[str, int] = defaultdict(int)
    for verdict in verdicts:
        if verdict.settled is None:
            continue
        for name in verdict.settled.injectors:
            used[name] += 1
        if len(verdict.settled.injectors) == 1:
            settled[verdict.settled.injectors[0]].append(verdict.settled.settled_ms)
            served[verdict.settled.injectors[0]].append(verdict.settled.served_ms)
    yield f"{'fault':18} {'used':>5} {'alone':>5} {'settled p50':>12} {'max':>7} {'served p50':>11}"
    for name in sorted(used):
        alone = settled[name]
        if alone:
            yield (
                f"{name:18} {used[name]:5} {len(alone):5} {median(alone) / 1000:10.2f} s "
                f"{max(alone) / 1000:5.1f} s {median(served[name]) / 1000:9.2f} s"
            )
        else:
            yield f"{name:18} {used[name]:5} {0:5}"
