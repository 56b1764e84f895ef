"""Processes killed, frozen, asked to leave; supervisord killed, whole nodes switched off.

What supervisord or the watchdog must mend by themselves is healed by doing nothing. Bounds are
those of a busy machine; what was measured is in the report.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

from tests.faults.harness.injector import Harm
from tests.faults.pool import Pool
from tests.support import eventually

PROGRAMS = (
    "broker",
    "gateway",
    "console",
    "approval",
    "renewal-0",
    "renewal-1",
    "roster-sync",
    "heartbeat",
    "failover",
    "watchdog",
)
NAME = b"SUPERVISOR_PROCESS_NAME="
REPLACED_S = 120.0
"""A watchdog that is new itself allows a broker it has never heard a minute to start."""
GONE_S = 20.0
SHORT_S = (0.1, 1.2)
"""Below every deadline: nobody may be replaced for it."""
MOMENT_S = (0.02, 0.9)
OUTAGE_S = (7.0, 12.0)
"""Beyond the grace period of the harness's meshes and the probes that follow it."""


@dataclass(frozen=True)
class Breaks:
    """An injector from a function; fits every mesh of at least `nodes` nodes."""

    name: str
    weight: int
    settles_s: float
    does: Callable[[Pool, Random], Harm]
    nodes: int = 1

    def fits(self, nodes: Sequence[Pool]) -> bool:
        """Return whether there are enough nodes."""
        return len(nodes) >= self.nodes

    def harm(self, nodes: Sequence[Pool], chance: Random) -> Harm:
        """Break something at one node: at the founder more often than at the others."""
        node = nodes[0] if chance.random() < 0.6 else chance.choice(nodes)
        return self.does(node, chance)


def pids_of(node: Pool) -> dict[str, int]:
    """Return the programs that have a process now, as the kernel knows them.

    Asking supervisord would take a second each time, and it may be what is broken.
    """
    pidfile = node.home / "run" / "supervisord.pid"
    try:
        boss = int(pidfile.read_text())
        children = Path(f"/proc/{boss}/task/{boss}/children").read_text().split()
    except (OSError, ValueError):
        return {}
    return {name: int(pid) for pid in children if (name := _program(pid))}


def _program(pid: str) -> str:
    """Return what supervisord calls a process; empty while it is not one of its programs yet."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    found = [word for word in words if word.startswith(NAME)]
    return found[0].removeprefix(NAME).decode() if found else ""


def send(pid: int, what: signal.Signals) -> None:
    """Send a signal to a process that may have gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, what)


def _pause(chance: Random, bounds: tuple[float, float]) -> None:
    threading.Event().wait(chance.uniform(*bounds))


def _victim(node: Pool, chance: Random, but: str = "") -> tuple[str, int]:
    """Return one program of those that run; the broker is as likely as three others."""
    running = pids_of(node)
    names = [name for name in PROGRAMS if name in running and name != but]
    if not names:
        return "", 0
    weights = [3 if name == "broker" else 1 for name in names]
    name = chance.choices(names, weights)[0]
    return name, running[name]


def _nothing() -> None:
    """Heal what heals itself."""


def _kill(node: Pool, chance: Random) -> Harm:
    name, pid = _victim(node, chance)
    if pid:
        send(pid, signal.SIGKILL)
    return Harm(f"SIGKILL of {name or 'nobody'} at {node.name}", _nothing)


def _terminate(node: Pool, chance: Random) -> Harm:
    name, pid = _victim(node, chance)
    if pid:
        send(pid, signal.SIGTERM)
    return Harm(f"SIGTERM of {name or 'nobody'} at {node.name}", _nothing)


def _kill_broker(node: Pool, chance: Random) -> Harm:
    _pause(chance, MOMENT_S)
    if pid := pids_of(node).get("broker"):
        send(pid, signal.SIGKILL)
    return Harm(f"SIGKILL of the broker at {node.name}", _nothing)


def _kill_broker_again(node: Pool, chance: Random) -> Harm:
    """Kill the broker, and each that comes after it a moment later."""
    count = chance.randint(2, 5)
    for _ in range(count):
        pid = eventually(lambda: pids_of(node).get("broker", 0), within_s=REPLACED_S)
        _pause(chance, MOMENT_S)
        send(pid, signal.SIGKILL)
        eventually(partial(_is_another, node, "broker", pid), within_s=REPLACED_S)
    return Harm(f"SIGKILL of {count} brokers in a row at {node.name}", _nothing)


def _is_another(node: Pool, name: str, pid: int) -> bool:
    return pids_of(node).get(name, pid) != pid


def _kill_workers(node: Pool, _chance: Random) -> Harm:
    victims = [pid for name, pid in pids_of(node).items() if name != "broker"]
    for pid in victims:
        send(pid, signal.SIGKILL)
    return Harm(f"SIGKILL of all {len(victims)} workers at {node.name}", _nothing)


def _freeze_shortly(node: Pool, chance: Random) -> Harm:
    name, pid = _victim(node, chance)
    lasts_s = chance.uniform(*SHORT_S)
    if pid:
        send(pid, signal.SIGSTOP)
        threading.Event().wait(lasts_s)
    return Harm(
        f"SIGSTOP of {name or 'nobody'} at {node.name} for {lasts_s:.2f} s", lambda: _go(pid)
    )


def _go(pid: int) -> None:
    if pid:
        send(pid, signal.SIGCONT)


def _freeze(node: Pool, chance: Random) -> Harm:
    """Stop a process for good: the watchdog has to see it and to replace it."""
    name, pid = _victim(node, chance, but="watchdog")  # nobody watches that one
    if not pid:
        return Harm(f"nobody to freeze at {node.name}", _nothing)
    send(pid, signal.SIGSTOP)
    return Harm(f"SIGSTOP of {name} at {node.name}, for ever", lambda: _await_end(node, name, pid))


def _await_end(node: Pool, name: str, pid: int) -> None:
    """Wait until another process does the work; the stopped one never does it again."""
    try:
        eventually(partial(_is_another, node, name, pid), within_s=REPLACED_S)
    except AssertionError:
        send(pid, signal.SIGCONT)
        raise


def _kill_supervisord(node: Pool, _chance: Random) -> Harm:
    pid = _boss(node)
    children = tuple(pids_of(node).values())
    if pid:
        send(pid, signal.SIGKILL)
    return Harm(f"SIGKILL of supervisord at {node.name}", lambda: _start(node, (pid, *children)))


def _cut_power(node: Pool, _chance: Random) -> Harm:
    pids = (_boss(node), *pids_of(node).values())
    for pid in pids:
        if pid:
            send(pid, signal.SIGKILL)
    return Harm(f"SIGKILL of everything at {node.name}", lambda: _start(node, pids))


def _outage(node: Pool, chance: Random) -> Harm:
    """Switch a node off for longer than the others wait: if it led, another one takes over."""
    pids = (_boss(node), *pids_of(node).values())
    for pid in filter(None, pids):
        send(pid, signal.SIGKILL)
    lasts_s = chance.uniform(*OUTAGE_S)

    def heal() -> None:
        threading.Event().wait(lasts_s)
        _start(node, pids)

    return Harm(f"SIGKILL of everything at {node.name} for {lasts_s:.1f} s", heal)


def _restart(node: Pool, _chance: Random) -> Harm:
    """Stop the node in order; every process leaves by itself."""
    done = node.run("down", timeout=90)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return Harm(f"an ordered stop of {node.name}", lambda: _start(node, ()))


def _boss(node: Pool) -> int:
    try:
        return node.supervisord_pid()
    except (OSError, ValueError):
        return 0


def _start(node: Pool, before: Sequence[int]) -> None:
    """Start a node as a person does, when nothing of it is left; raises when something stays."""
    eventually(lambda: not any(_lives(pid) for pid in before if pid), within_s=GONE_S)
    done = node.run("up", timeout=120)
    assert done.returncode == 0, (done.stdout, done.stderr)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


INJECTORS = (
    Breaks("kill", 8, 30, _kill),
    Breaks("kill-broker", 8, 30, _kill_broker),
    Breaks("kill-brokers", 2, 60, _kill_broker_again),
    Breaks("kill-workers", 3, 40, _kill_workers),
    Breaks("terminate", 3, 30, _terminate),
    Breaks("freeze-shortly", 4, 30, _freeze_shortly),
    Breaks("freeze", 2, 40, _freeze),
    Breaks("kill-supervisord", 2, 40, _kill_supervisord),
    Breaks("power-cut", 3, 60, _cut_power),
    Breaks("outage", 2, 90, _outage, nodes=2),
    Breaks("restart", 1, 60, _restart),
)
