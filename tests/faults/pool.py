"""A real node under a real supervisord, and the means to break its processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
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

    @classmethod
    def create(cls, port: int, *more: str) -> "Pool":
        """Create a mesh in a short temporary home on 127.0.0.1, with `more` settings."""
        home = Path(tempfile.mkdtemp(prefix="cmf-", dir="/tmp"))
        pool = cls(home)
        words = ["init", "pool", "--node-name", "atlas", "--listen", "127.0.0.1"]
        words += ["--enroll-port", str(port), "--mesh-port", str(port + 1)]
        for setting in (*SETTINGS, *more):
            words += ["--setting", setting]
        return cls(home, pool.certmesh(*words)["passphrase"])

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
