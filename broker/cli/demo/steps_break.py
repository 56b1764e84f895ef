"""Step 7: a worker dies; supervisord restarts that one and nothing else."""

import os
import signal

from broker.cli.demo.failure import require, until
from broker.cli.demo.node import Node, pick
from broker.cli.demo.stage import Stage
from broker.clock import boottime_ms

BACK_S = 15.0
VICTIM = "renewal"


def kill_worker(stage: Stage) -> str:
    """Kill a renewal process of node-c with SIGKILL and wait until it works again."""
    node = stage.node_c
    before = _pids(node)
    victim = next((name for name in sorted(before) if name.startswith(VICTIM)), "")
    require(victim, f"no {VICTIM} process among {sorted(before)}")
    # kill(0) would end this very process group: a process between two lives has no pid.
    require(before[victim] > 1, f"{victim} has no pid right now")
    began_ms = boottime_ms()
    os.kill(before[victim], signal.SIGKILL)

    def is_back() -> bool:
        line = _lines(node).get(victim, {})
        alive = line.get("liveness") == "ready" and line.get("supervisor") in (
            "RUNNING",
            "STARTING",
        )
        return alive and line.get("pid") not in (0, before[victim])

    until(f"{victim} ready again", is_back, BACK_S, log=node.log(victim))
    took_s = (boottime_ms() - began_ms) / 1000
    after = _pids(node)
    others = {name for name in before if name != victim and after.get(name) != before[name]}
    require(not others, f"these were restarted too: {sorted(others)}")
    restarts = until("the restart counted", lambda: _restarts(node, victim), BACK_S)
    return f"{victim} on node-c killed, back in {took_s:.1f} s (restart {restarts}), no other"


def _lines(node: Node) -> dict[str, dict[str, object]]:
    workers = pick(node.ask("ps"), "workers") or ()
    return {str(line["instance"]): line for line in workers}


def _pids(node: Node) -> dict[str, int]:
    answer = node.ask("ps")
    found = {str(line["instance"]): int(line["pid"]) for line in pick(answer, "workers") or ()}
    return {**found, "broker": int(pick(answer, "broker_pid") or 0)}


def _restarts(node: Node, instance: str) -> int | None:
    counted = _lines(node).get(instance, {}).get("restarts")
    return counted if isinstance(counted, int) and counted > 0 else None
