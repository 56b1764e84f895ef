"""The bounds, measured on a whole node with its usual settings: kill, hang, stop, start again.

For an idle machine. Times of processes are taken from the moment of the signal to the first answer.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bench.lone_broker import RawClient
from bench.pool import certmesh, node_home, recover_broker, recover_worker, settle
from broker.runtime.paths import Paths
from broker.wire.ids import Service
from broker.wire.node import GetNode, ListWorkers, WorkersView
from tests.reliability import figures
from tests.reliability.figures import Figure, figure
from tests.support import eventually

WORKERS = ("heartbeat", "renewal-0", "roster-sync", "failover", "gateway", "approval", "console")
DEAD_AFTER_S = 15.0
"""The default of `broker.worker_dead_after`: what a silent process is given."""
SLACK_S = 3.0
HUNG_PATIENCE_S = 60.0
ANSWER_MS = 200
HOOK_PATIENCE_S = 150.0
HOOK = '#!/bin/sh\ntouch "{marker}"\nexec sleep 60\n'

Measurement = Callable[[Paths, int], Iterator[Figure]]


def measure_all(times: int, only: str = "") -> list[str]:
    """Measure and keep every figure; return one line for each bound that was missed."""
    found: list[Figure] = []
    with node_home() as paths:
        certmesh(paths, "up")
        for measurement in MEASUREMENTS:
            if measurement.__name__.strip("_").startswith(only):
                for one in measurement(paths, times):
                    sys.stderr.write(f"{one.name}: median {one.median} {one.unit} of {one.n}\n")
                    found.append(one)
    figures.write(tuple(found))
    return [
        f"{one.what}: {one.median} {one.unit} is over {one.bound} {one.unit}"
        for one in found
        if not one.holds
    ]


def _broker_killed(paths: Paths, times: int) -> Iterator[Figure]:
    took = [recover_broker(paths) for _ in range(times)]
    yield figure("broker_kill_s", "kill -9 of the broker to its first answer", took, 1.0)


def _workers_killed(paths: Paths, times: int) -> Iterator[Figure]:
    took = [recover_worker(paths, name) for name in WORKERS for _ in range(max(1, times // 4))]
    yield figure("worker_kill_s", "kill -9 of a worker until it is ready again", took, 1.5)


def _worker_hung(paths: Paths, times: int) -> Iterator[Figure]:
    took = [_hang(paths, "heartbeat") for _ in range(max(1, times // 7))]
    name = "a worker that hangs until another one is ready"
    yield figure("hung_worker_s", name, took, DEAD_AFTER_S + SLACK_S)


def _broker_hung(paths: Paths, times: int) -> Iterator[Figure]:
    took = []
    for _ in range(max(1, times // 7)):
        settle(paths, "broker")
        pid = _workers(paths).broker_pid
        began = time.perf_counter()
        os.kill(pid, signal.SIGSTOP)
        # A stopped broker answers nobody: whoever answers is the next one.
        eventually(lambda: _answers(paths), within_s=HUNG_PATIENCE_S)
        took.append(time.perf_counter() - began)
    name = "a broker that hangs until the next one answers"
    yield figure("hung_broker_s", name, took, DEAD_AFTER_S)


def _stopped(paths: Paths, times: int) -> Iterator[Figure]:
    took = [_stop(paths) for _ in range(max(1, times // 4))]
    yield figure("stop_s", "ordered stop of a node", took, 5.0)


def _stopped_during_hook(paths: Paths, times: int) -> Iterator[Figure]:
    took = []
    for _ in range(max(1, times // 7)):
        with _running_hook(paths):
            took.append(_stop(paths))
    name = "ordered stop of a node while a hook of a minute runs"
    yield figure("stop_with_hook_s", name, took, 10.0)


def _supervisord_killed(paths: Paths, times: int) -> Iterator[Figure]:
    gone, again = [], []
    for _ in range(max(1, times // 4)):
        workers = _workers(paths)
        pids = [workers.broker_pid, *(w.pid for w in workers.workers if w.pid)]
        pids = [pid for pid in pids if pid != os.getpid()]  # this process asks as a worker too
        began = time.perf_counter()
        os.kill(int((paths.run / "supervisord.pid").read_text()), signal.SIGKILL)
        eventually(partial(_are_gone, pids), within_s=20)
        gone.append(time.perf_counter() - began)
        began = time.perf_counter()
        certmesh(paths, "up")
        again.append(time.perf_counter() - began)
    yield figure("orphans_gone_s", "kill -9 of supervisord until its children are gone", gone, 2.0)
    yield figure("up_again_s", "`certmesh up` after that until the node is ready", again, 5.0)


MEASUREMENTS: tuple[Measurement, ...] = (
    _broker_killed,
    _workers_killed,
    _worker_hung,
    _broker_hung,
    _stopped,
    _stopped_during_hook,
    _supervisord_killed,
)


def _hang(paths: Paths, name: str) -> float:
    settle(paths, name)
    client = RawClient(paths, Service.CONSOLE)
    pid = _pid(client, name)
    began = time.perf_counter()
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: _pid(client, name) not in {0, pid}, within_s=HUNG_PATIENCE_S)
    took = time.perf_counter() - began
    client.close()
    return took


def _stop(paths: Paths) -> float:
    """Return how long a stop takes, and have the node running again."""
    began = time.perf_counter()
    certmesh(paths, "down")
    took = time.perf_counter() - began
    certmesh(paths, "up")
    return took


@contextmanager
def _running_hook(paths: Paths) -> Iterator[None]:
    """Have a hook running that would take a minute; nobody waits for it afterwards."""
    hook, marker = paths.home / "hooks.d" / "deploy" / "slow", paths.home / "hook-began"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text(HOOK.format(marker=marker))
    hook.chmod(0o700)
    command = [sys.executable, "-m", "broker.cli", "--home", str(paths.home), "cert", "renew"]
    asked: list[subprocess.Popen[bytes]] = []

    def has_begun() -> bool:
        # A second renewal within the minute is refused: it is asked for again until it is time.
        if not asked or asked[-1].poll() is not None:
            asked.append(
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            )
        return marker.exists()

    try:
        eventually(has_begun, within_s=HOOK_PATIENCE_S)
        yield
    finally:
        marker.unlink(missing_ok=True)
        hook.unlink(missing_ok=True)
        for process in asked:
            process.kill()
            process.wait()


def _workers(paths: Paths) -> WorkersView:
    client = RawClient(paths, Service.CONSOLE)
    try:
        return _view(client)
    finally:
        client.close()


def _view(client: RawClient) -> WorkersView:
    reply = client.ask(ListWorkers())
    if not isinstance(reply, WorkersView):
        raise TypeError(f"refused: {reply}")
    return reply


def _pid(client: RawClient, name: str) -> int:
    ready = [w for w in _view(client).workers if w.instance == name and w.liveness == "ready"]
    return ready[0].pid if ready else 0


def _answers(paths: Paths) -> bool:
    """Whether a broker takes a new caller, within the moment that a living one needs."""
    try:
        client = RawClient(paths, Service.CONSOLE, patience_ms=ANSWER_MS)
    except RuntimeError:
        return False
    client.ask(GetNode())
    client.close()
    return True


def _are_gone(pids: list[int]) -> bool:
    return not any(_lives(pid) for pid in pids)


def _lives(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
