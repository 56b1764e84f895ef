"""A whole node under supervisord: start, recovery from kill -9, memory, command start."""

import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.lone_broker import RawClient, enroll_members
from bench.report import Result, result
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import load_settings
from broker.wire.ids import Service
from broker.wire.node import GetNode, ListWorkers, WorkersView

CERTMESH = [sys.executable, "-m", "broker.cli"]
STARTS = 3
KILLS = 5
MEMBERS = 100_000
PATIENCE_S = 30
STARTSECS_MS = 1000
"""As in supervisord.conf."""
SETTLED_S = 1.0
POLL_S = 0.05
ARGUMENTS = [
    *("init", "bench", "--node-name", "atlas", "--listen", "127.0.0.1", "--yes"),
    *("--enroll-port", "15742", "--mesh-port", "15743", "--json"),
    *("--setting", "discovery.mdns=false", "--setting", "log.level='warning'"),
]


def measure() -> list[Result]:
    """Return start, recovery, memory and command figures of one node."""
    with node_home() as paths:
        starts = [_timed(lambda: certmesh(paths, "up")) for _ in _stopped_between(paths, STARTS)]
        memory = [_pss_mb(paths) for _ in range(3)]
        certmesh(paths, "down")
        enroll_members(paths, MEMBERS, due=False)
        certmesh(paths, "up")
        broker = [recover_broker(paths) for _ in range(KILLS)]
        worker = [recover_worker(paths, "heartbeat") for _ in range(KILLS)]
        certmesh(paths, "down")
    rows = f"{MEMBERS} members"
    return [
        result("up_to_ready_s", starts, unit="s", better="lower", target=4),
        result("node_pss_mb", memory, unit="MB", better="lower", target=190),
        result("broker_recovery_s", broker, unit="s", better="lower", target=0.6, note=rows),
        result("worker_recovery_s", worker, unit="s", better="lower", target=0.6),
        result("cli_help_ms", _help_ms(), unit="ms", better="lower", target=100),
    ]


@contextmanager
def node_home() -> Iterator[Paths]:
    """Create a mesh in a temporary home; stop and remove it at the end."""
    home = Path(tempfile.mkdtemp(prefix="cmp-", dir="/tmp"))
    environment = {**os.environ, "CERTMESH_HOME": str(home)}
    subprocess.run([*CERTMESH, *ARGUMENTS], env=environment, check=True, stdout=subprocess.DEVNULL)
    settings_file = home / "certmesh.toml"
    paths = node_paths(settings_file, load_settings(settings_file))
    try:
        yield paths
    finally:
        certmesh(paths, "down")
        shutil.rmtree(home, ignore_errors=True)


def certmesh(paths: Paths, *words: str) -> bytes:
    """Run a command that must succeed and return what it printed."""
    environment = {**os.environ, "CERTMESH_HOME": str(paths.home)}
    done = subprocess.run(
        [*CERTMESH, *words, "--json"], env=environment, check=True, capture_output=True
    )
    return done.stdout


def _stopped_between(paths: Paths, count: int) -> Iterator[int]:
    for number in range(count):
        if number:
            certmesh(paths, "down")
        yield number


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def recover_broker(paths: Paths) -> float:
    """Return seconds from SIGKILL of the broker to the first answered request."""
    settle(paths, "broker")
    before = RawClient(paths, Service.CONSOLE)
    view = before.ask(ListWorkers())
    before.close()
    if not isinstance(view, WorkersView):
        raise TypeError(f"refused: {view}")
    pid = view.broker_pid
    started = time.perf_counter()
    _end(pid)
    client = RawClient(paths, Service.CONSOLE)
    client.ask(GetNode())
    took = time.perf_counter() - started
    client.close()
    return took


def recover_worker(paths: Paths, instance: str) -> float:
    """Return seconds from SIGKILL of a worker to its next READY."""
    settle(paths, instance)
    client = RawClient(paths, Service.CONSOLE)
    pid = _worker_pid(client, instance)
    started = time.perf_counter()
    _end(pid)
    while _worker_pid(client, instance) in {pid, 0}:
        if time.perf_counter() - started > PATIENCE_S:
            raise TimeoutError(f"{instance} did not come back")
    took = time.perf_counter() - started
    client.close()
    return took


def settle(paths: Paths, program: str) -> None:
    """Wait until supervisord has called a program RUNNING for a second.

    What dies within `startsecs` of its start is started again only after a pause (BACKOFF), which
    measures supervisord's patience instead of our recovery.
    """
    client = RawClient(paths, Service.CONSOLE)
    pause = threading.Event()
    began = time.perf_counter()
    since: float | None = None
    while since is None or time.perf_counter() - since < SETTLED_S:
        if time.perf_counter() - began > PATIENCE_S:
            raise TimeoutError(f"{program} does not settle")
        if not _is_running(client, program):
            since = None
        elif since is None:
            since = time.perf_counter()
        pause.wait(POLL_S)
    client.close()


def _is_running(client: RawClient, program: str) -> bool:
    reply = client.ask(ListWorkers())
    if not isinstance(reply, WorkersView):
        raise TypeError(f"refused: {reply}")
    if program == "broker":  # it is not in its own list
        return reply.broker_uptime_ms >= STARTSECS_MS
    return any(
        w.instance == program and w.supervisor == "RUNNING" and w.liveness == "ready"
        for w in reply.workers
    )


def _end(pid: int) -> None:
    # kill(0) would end this very process group: a process that is not there yet has no pid.
    if pid <= 1:
        raise RuntimeError(f"pid {pid} is no process to end")
    os.kill(pid, signal.SIGKILL)


def _worker_pid(client: RawClient, instance: str) -> int:
    reply = client.ask(ListWorkers())
    if not isinstance(reply, WorkersView):
        raise TypeError(f"refused: {reply}")
    found = [w.pid for w in reply.workers if w.instance == instance and w.liveness == "ready"]
    return found[0] if found else 0


def _pss_mb(paths: Paths) -> float:
    """Return the proportional memory of supervisord and all its descendants."""
    pid = int((paths.run / "supervisord.pid").read_text())
    return sum(_pss_kb(member) for member in _family(pid)) / 1024


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in _family(int(child)))]


def _pss_kb(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    return int(found[1]) if found else 0


def _help_ms() -> list[float]:
    certmesh = Path(sys.executable).parent / "certmesh"
    command = [str(certmesh), "--help"] if certmesh.exists() else [*CERTMESH, "--help"]
    times = []
    for _ in range(8):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times.append((time.perf_counter() - started) * 1000)
    return [*times[1:6], statistics.median(times[1:])]
