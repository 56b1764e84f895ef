"""One host of a laboratory as a test sees it: a machine with a person at its keyboard."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from broker.cli.api import Api
from broker.errors import MeshError, UnavailableError
from broker.wire.node import NodeView

if TYPE_CHECKING:
    from tests.lab.hosts import Lab

ROOT = Path(__file__).parents[2]
COMMAND_S = 60.0
CONSOLE_MS = 3_000

R = TypeVar("R", bound=msgspec.Struct)


class Host:
    """Commands run inside its namespaces; its home outlives a power-off."""

    def __init__(self, lab: "Lab", name: str, address: str, home: Path) -> None:
        self._lab = lab
        self._pid: int | None = None
        self.name = name
        self.address = address
        self.home = home

    @property
    def is_on(self) -> bool:
        """Whether it has power."""
        return self._pid is not None

    def power_on(self) -> None:
        """Boot it; nothing runs in it yet."""
        self._pid = self._lab.boot(self)

    def power_off(self) -> None:
        """Cut its power: all its processes are gone on return, and nobody heard a goodbye."""
        self._pid = None
        self._lab.power_off(self)

    def execute(
        self, *argv: str, text: str = "", timeout: float = COMMAND_S
    ) -> "subprocess.CompletedProcess[str]":
        """Run any command to its end; `text` goes to its standard input.

        Raises:
            subprocess.TimeoutExpired: It was killed because it did not end in time.
        """
        with self._started(argv, stderr=subprocess.PIPE) as process:
            out, err = process.communicate(text, timeout)
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    @contextmanager
    def background(self, *argv: str) -> Iterator["subprocess.Popen[str]"]:
        """Run a command while inside; it is killed at the end if it did not leave by itself."""
        with self._started(argv, stderr=None) as process:
            yield process

    def python(self, source: str, *words: str) -> str:
        """Return what a script prints that runs on this host and must succeed."""
        done = self.execute(sys.executable, "-c", source, *words)
        assert done.returncode == 0, (self.name, done.stdout, done.stderr)
        return done.stdout

    def run(
        self, *words: str, text: str = "", timeout: float = COMMAND_S
    ) -> "subprocess.CompletedProcess[str]":
        """Run a certmesh command with --json; return how it ended."""
        node = ("--home", str(self.home), "--operator", "lab", "--no-input")
        command = (sys.executable, "-m", "broker.cli", *node)
        return self.execute(*command, *words, "--json", text=text, timeout=timeout)

    def certmesh(self, *words: str, text: str = "") -> dict[str, Any]:
        """Run a certmesh command that must succeed and return its object."""
        done = self.run(*words, text=text)
        assert done.returncode == 0, (self.name, words, done.returncode, done.stdout, done.stderr)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def status(self) -> dict[str, Any]:
        """Return what `certmesh status` shows, content or not; nothing while the node is down."""
        done = self.run("status")
        shown: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
        return shown

    def ask(self, path: str, kind: type[R]) -> R:
        """Return what this node's console answers; its socket is a file that tests can reach.

        Raises:
            AssertionError: It does not answer, or refuses.
        """
        silence = UnavailableError(f"{self.name} does not answer")
        try:
            return Api(self.home / "run" / "api.sock", CONSOLE_MS, silence).get(path, kind)
        except MeshError as error:
            raise AssertionError(f"{self.name} {path}: {error.detail}") from None

    def node(self) -> NodeView:
        """Return who this node says it is."""
        return self.ask("/v1/node", NodeView)

    def answers(self) -> bool:
        """Whether its pool runs."""
        try:
            return self.is_on and self.node().host == self.name
        except AssertionError:
            return False

    def start_pool(self) -> None:
        """Start the node's processes and wait until they are ready."""
        self.certmesh("up")

    def stop_pool(self) -> None:
        """Stop them in order, goodbyes included."""
        self.certmesh("down")

    def supervisorctl(self, *words: str) -> str:
        """Ask supervisord directly, as an operator would."""
        table = str(self.home / "supervisord.conf")
        return self.execute(
            *(sys.executable, "-m", "supervisor.supervisorctl", "-c", table, *words)
        ).stdout

    def pids(self) -> dict[str, int]:
        """Return the pid, as this host numbers them, of every running program by name."""
        found = {}
        for line in self.supervisorctl("status").splitlines():
            name, state, *rest = line.split()
            if state == "RUNNING":
                found[name.rpartition(":")[2]] = int(rest[1].rstrip(","))
        return found

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to a process of this host."""
        done = self.execute("sh", "-c", f"kill -{int(number)} {pid}")
        assert done.returncode == 0, (self.name, done.stderr)

    def log(self, program: str) -> str:
        """Return the log of one program."""
        path = self.home / "log" / f"{program}.log"
        return path.read_text() if path.exists() else ""

    def events(self, program: str, event: str) -> list[dict[str, Any]]:
        """Return the lines of one kind in the log of a program."""
        lines = (json.loads(line) for line in self.log(program).splitlines())
        return [line for line in lines if line["event"] == event]

    @contextmanager
    def _started(
        self, argv: Sequence[str], stderr: int | None
    ) -> Iterator["subprocess.Popen[str]"]:
        assert self._pid is not None, f"{self.name} has no power"
        entry = ("nsenter", f"--target={self._pid}", "--net", "--uts", "--pid", "--mount", "--")
        with subprocess.Popen(
            (*entry, *argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment(),
            start_new_session=True,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    # The command is a child of nsenter; only the whole group ends with certainty.
                    os.killpg(process.pid, signal.SIGKILL)


def environment() -> dict[str, str]:
    """Return an environment that finds this checkout and changes no node's settings."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith("CERTMESH_")}
    return kept | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TERM": "dumb"}
