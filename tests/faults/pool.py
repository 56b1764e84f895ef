"""A real node under a real supervisord, and the means to break its processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.support import eventually

SETTINGS = (
    "discovery.mdns=false",
    'broker.worker_dead_after="2s"',
    'heartbeat.interval="500ms"',
    'failover.tick="1s"',
    'renewal.check_every="5s"',
    'renewal.attempt_every="1s"',
    "ca.kdf_memory=8388608",
    "ca.kdf_passes=1",
)


@dataclass(frozen=True)
class Pool:
    """One node's home; commands are the ones a person types."""

    home: Path
    passphrase: str = ""
    name: str = "atlas"
    address: str = "127.0.0.1"
    port: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    """Laid over our own for every process of the node: how injectors get inside."""

    @classmethod
    def create(cls, port: int, *more: str, environment: Mapping[str, str] | None = None) -> "Pool":
        """Create a mesh in a short temporary home on 127.0.0.1, with `more` settings."""
        pool = cls(_short_home(), port=port, environment=environment or {})
        words = ["init", "pool", *pool._place(), *_settings(more)]
        return replace(pool, passphrase=pool.certmesh(*words)["passphrase"])

    def joined(
        self,
        name: str,
        address: str,
        *more: str,
        environment: Mapping[str, str] | None = None,
    ) -> "Pool":
        """Let another node join this running one, at the same ports of another address."""
        invite = str(self.certmesh("invite", "create", name)["invite"])
        pool = Pool(_short_home(), self.passphrase, name, address, self.port, environment or {})
        pool.certmesh("join", invite, "--yes", *pool._place(), *_settings(more))
        return pool

    def _place(self) -> list[str]:
        words = ["--node-name", self.name, "--listen", self.address]
        return [*words, "--enroll-port", str(self.port), "--mesh-port", str(self.port + 1)]

    def run(
        self, *words: str, timeout: float = 60, text: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command with --json and `text` on standard input; return how it ended."""
        command = [sys.executable, "-m", "broker.cli", "--home", str(self.home), "--no-input"]
        return subprocess.run(
            [*command, "--operator", "faults", *words, "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            input=text,
            env={**os.environ, **self.environment},
        )

    def certmesh(self, *words: str) -> dict[str, Any]:
        """Run a command that must succeed and return its object."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def supervisorctl(self, *words: str) -> str:
        """Ask supervisord directly, as an operator would."""
        command = [sys.executable, "-m", "supervisor.supervisorctl"]
        done = subprocess.run(
            [*command, "-c", str(self.home / "supervisord.conf"), *words],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout

    def pids(self) -> dict[str, int]:
        """Return the pid of every running program by name."""
        found = {}
        for line in self.supervisorctl("status").splitlines():
            name, state, *rest = line.split()
            if state == "RUNNING":
                found[name.rpartition(":")[2]] = int(rest[1].rstrip(","))
        return found

    def supervisord_pid(self) -> int:
        """Return the pid of this node's supervisord."""
        return int((self.home / "run" / "supervisord.pid").read_text())

    def is_ok(self) -> bool:
        """Whether `certmesh status` is content."""
        return self.run("status").returncode == 0

    def log(self, program: str) -> str:
        """Return the log of one program."""
        path = self.home / "log" / f"{program}.log"
        return path.read_text() if path.exists() else ""

    def remove(self) -> None:
        """Stop what runs and remove the home."""
        self.run("down")
        pidfile = self.home / "run" / "supervisord.pid"
        if pidfile.exists():
            self._kill_group(int(pidfile.read_text()))
        shutil.rmtree(self.home, ignore_errors=True)

    def _kill_group(self, pid: int) -> None:
        """End a supervisord that did not stop, if the pid is still that one."""
        command = Path(f"/proc/{pid}/cmdline")
        if command.exists() and str(self.home).encode() in command.read_bytes():
            os.kill(pid, signal.SIGKILL)
            eventually(lambda: not command.exists() or not command.read_bytes(), within_s=10)


def _short_home() -> Path:
    return Path(tempfile.mkdtemp(prefix="cmf-", dir="/tmp"))


def _settings(more: tuple[str, ...]) -> list[str]:
    return [word for setting in (*SETTINGS, *more) for word in ("--setting", setting)]
