"""Three nodes under supervisord on loopback addresses: a founder, its standby, a member."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.lone_broker import RawClient
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import load_settings
from broker.wire.ids import Service
from broker.wire.messages import AnyReply
from broker.wire.node import GetNode, NodeView

CERTMESH = [sys.executable, "-m", "broker.cli"]
T = TypeVar("T")
PORTS = ("14742", "14743")
GRACE_MS = 4_000
TICK_MS = 500
STAGGER_MS = 1_000
PATIENCE_S = 90.0
POLL_S = 0.002
TIMERS = (
    f'failover.tick="{TICK_MS}ms"',
    f'failover.grace="{GRACE_MS}ms"',
    f'failover.stagger="{STAGGER_MS}ms"',
    'heartbeat.interval="500ms"',
    'renewal.attempt_every="0s"',
    "discovery.mdns=false",
    'log.level="warning"',
    'broker.worker_dead_after="120s"',
    "ca.kdf_memory=8388608",
    "ca.kdf_passes=1",
)


@dataclass
class Box:
    """One node: its files, and a connection to its broker."""

    name: str
    address: str
    paths: Paths

    def certmesh(self, *words: str) -> dict[str, Any]:
        """Run a command that succeeds, or at least answers."""
        home = {**os.environ, "CERTMESH_HOME": str(self.paths.home)}
        command = [*CERTMESH, "--operator", "bench", *words, "--json"]
        done = subprocess.run(command, env=home, capture_output=True, text=True, check=False)
        if done.returncode not in (0, 3):
            raise RuntimeError(f"{words}: {done.stdout} {done.stderr}")
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return answer

    def client(self, service: Service = Service.CONSOLE) -> RawClient:
        """Connect to the broker of this node."""
        return RawClient(self.paths, service)

    def kill(self) -> None:
        """End supervisord and all its children at once, as a power cut would."""
        pid = int((self.paths.run / "supervisord.pid").read_text())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for victim in (pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)


def until(probe: Callable[[], object], what: str) -> float:
    """Wait until something is true; return when it was, on the performance counter."""
    pause, began = threading.Event(), time.perf_counter()
    while not probe():
        if time.perf_counter() - began > PATIENCE_S:
            raise TimeoutError(what)
        pause.wait(POLL_S)
    return time.perf_counter()


def view(client: RawClient) -> NodeView:
    """Return who a node is now."""
    return expect(client.ask(GetNode()), NodeView)


def expect(reply: AnyReply, kind: type[T]) -> T:
    """Return the reply if it is one of `kind`."""
    if not isinstance(reply, kind):
        raise TypeError(f"refused: {reply}")
    return reply


@contextlib.contextmanager
def three_boxes() -> Iterator[tuple[Box, Box, Box]]:
    """Found a mesh on atlas, let birch and cedar join, make birch the standby."""
    home = Path(tempfile.mkdtemp(prefix="cmq-", dir="/tmp"))
    names = ("atlas", "birch", "cedar")
    boxes = [_box(home, name, f"127.0.0.{2 + number}") for number, name in enumerate(names)]
    atlas, birch, cedar = boxes
    try:
        words = ("init", "bench", "--node-name", "atlas", "--listen", atlas.address, "--yes")
        atlas.certmesh(*words, *_options(atlas))
        atlas.certmesh("up")
        for box in (birch, cedar):
            invite = str(atlas.certmesh("invite", "create", box.name)["invite"])
            words = ("join", invite, "--node-name", box.name, "--listen", box.address, "--yes")
            box.certmesh(*words, *_options(box))
            box.certmesh("up")
        atlas.certmesh("standby", "nominate", "birch", "--wait", "60s")
        yield atlas, birch, cedar
    finally:
        for box in boxes:
            with contextlib.suppress(RuntimeError, ValueError, IndexError):
                box.certmesh("down")
        shutil.rmtree(home, ignore_errors=True)


def _options(_box: Box) -> list[str]:
    settings = [word for setting in TIMERS for word in ("--setting", setting)]
    return ["--enroll-port", PORTS[0], "--mesh-port", PORTS[1], *settings]


def _box(home: Path, name: str, address: str) -> Box:
    (home / name).mkdir()
    file = home / name / "certmesh.toml"
    file.touch()
    paths = node_paths(file, load_settings(file))
    file.unlink()
    return Box(name, address, paths)
