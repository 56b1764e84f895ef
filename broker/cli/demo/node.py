"""One node of the demo, seen from outside: its home, its doors, and the command that drives it."""

import configparser
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker.cli.demo.failure import StepError

MESH = "demo"
ENROLL_PORT = 18742
MESH_PORT = 18743
COMMAND_S = 60
OPERATOR = "demo"
"""Who decides in the demo; whoever runs it may be root, and that is nobody's name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one run of `certmesh` said; `lines` are the JSON objects on its standard output."""

    status: int
    lines: tuple[dict[str, Any], ...]
    stderr: str
    words: tuple[str, ...] = ()

    @property
    def body(self) -> dict[str, Any]:
        """The last object, which carries the answer."""
        return self.lines[-1] if self.lines else {}

    @property
    def code(self) -> str:
        """The stable name of the refusal, if it was one."""
        return str(pick(self.body, "code") or "")

    @property
    def sentence(self) -> str:
        """The refusal in words."""
        detail = pick(self.body, "detail") or self.stderr.strip().splitlines()[-1:] or "no answer"
        return f"certmesh {' '.join(self.words)}: exit {self.status}, {detail}"


@dataclass(frozen=True, slots=True)
class Node:
    """A home directory and two doors on an address of its own."""

    name: str
    address: str
    home: Path
    settings: dict[str, object] = field(default_factory=dict)

    @property
    def live(self) -> Path:
        """Where this node's current certificate lies."""
        return self.home / "certs" / self.name / "live"

    @property
    def server_name(self) -> str:
        """The DNS name in its certificate."""
        return f"{self.name}.{MESH}.internal"

    def log(self, program: str) -> Path:
        """Return the log of one of its processes."""
        return self.home / "log" / f"{program}.log"

    def call(self, *words: str, typed: str = "", within_s: float = COMMAND_S) -> Answer:
        """Run `certmesh` against this node and return what it said, whatever that was."""
        who = ("--home", str(self.home), "--operator", OPERATOR)
        argv = (sys.executable, "-m", "broker.cli", *who, "--json", *words)
        done = run_program(argv, typed=typed, within_s=within_s)
        return Answer(done.returncode, _objects(done.stdout), done.stderr, words)

    def ask(self, *words: str, typed: str = "", within_s: float = COMMAND_S) -> dict[str, Any]:
        """Return the answer of a command that has to succeed.

        Raises:
            StepError: It did not.
        """
        answer = self.call(*words, typed=typed, within_s=within_s)
        if answer.status != 0:
            shown = " ".join(("certmesh", "--home", str(self.home), *words))
            raise StepError(answer.sentence, todo=shown, log=self.log("broker"))
        return answer.body

    def supervisor_pid(self) -> int | None:
        """Return the pid of this home's own supervisord, None when it does not run.

        The pid file alone proves nothing: the process must have been started with this home's
        process table, or it belongs to somebody else.
        """
        table = self.home / "supervisord.conf"
        parser = configparser.RawConfigParser(inline_comment_prefixes=(";",))
        try:
            parser.read_string(table.read_text())
            stated = parser.get("supervisord", "pidfile").replace("%(here)s", str(self.home))
            pid = int(Path(stated).read_text())
            started_with = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError, configparser.Error):
            return None
        return pid if os.fsencode(table) in started_with else None

    def process_ids(self) -> tuple[int, ...]:
        """Return this home's own supervisord and all its children; nothing when down."""
        parent = self.supervisor_pid()
        if parent is None:
            return ()
        return (parent, *(pid for pid, above in _parents() if above == parent))

    def signal_supervisor(self, number: signal.Signals) -> None:
        """Signal this home's own supervisord, if it runs."""
        pid = self.supervisor_pid()
        if pid is not None:
            os.kill(pid, number)


def run_program(
    argv: Sequence[str], *, typed: str = "", within_s: float = COMMAND_S
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, away from the settings of whoever runs the demo.

    Raises:
        StepError: It did not end in time.
    """
    try:
        return subprocess.run(  # noqa: S603 (argv lists made here, no shell)
            argv,
            input=typed,
            capture_output=True,
            text=True,
            timeout=within_s,
            env=quiet_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StepError(f"{' '.join(argv[:4])} ...: no answer in {within_s:g} s") from None


def pick(answer: object, key: str) -> Any:
    """Return the first value under `key` anywhere in a JSON answer, outermost first."""
    layer: Sequence[object] = (answer,)
    while layer:
        objects = [part for part in layer if isinstance(part, dict)]
        for part in objects:
            if key in part:
                return part[key]
        lists = [part for part in layer if isinstance(part, list)]
        layer = [inner for part in objects for inner in part.values()] + [
            inner for part in lists for inner in part
        ]
    return None


def quiet_environment() -> dict[str, str]:
    """Return the environment without anything that would change a node's settings."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith("CERTMESH_")}
    return kept | {"NO_COLOR": "1", "TERM": "dumb"}


def _parents() -> Iterator[tuple[int, int]]:
    """Yield every process of this machine with its parent (proc(5), field 4 of stat)."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended while we looked
        yield int(stat.parent.name), int(after_name[1])


def _objects(stdout: str) -> tuple[dict[str, Any], ...]:
    """Return the JSON objects in `stdout`: one, or one per line."""
    try:
        whole = json.loads(stdout)
        return (whole,) if isinstance(whole, dict) else ()
    except ValueError:
        return tuple(line for line in map(_object, stdout.splitlines()) if line)


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
