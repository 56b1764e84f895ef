"""The runbook is run: every command of docs/recovery.md, on real nodes, as it stands there."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import eventually

PAGE = Path(__file__).parents[2] / "docs" / "recovery.md"
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(240)]

ADDRESSES = {"atlas": "127.0.0.1", "birch": "127.0.0.2", "cedar": "127.0.0.3"}
ENROLL_PORT, MESH_PORT = 19642, 19643
SETTINGS = (
    "discovery.mdns=false",
    'heartbeat.interval="500ms"',
    'failover.tick="500ms"',
    'failover.grace="4s"',
    'failover.stagger="1s"',
    'renewal.check_every="2s"',
    'renewal.attempt_every="1s"',
    'sync.every="2s"',
    'backup.every="0s"',
    "ca.kdf_memory=8388608",
    "ca.kdf_passes=1",
)
_BLOCK = re.compile(r"```console\n(.*?)```", re.DOTALL)
_PROMPT = re.compile(r"(\w+)\$ (.*)")


@dataclass(frozen=True)
class Step:
    """One command of the page, and what the page says it shows."""

    machine: str
    line: str
    shown: tuple[str, ...]


def steps_of(scenario: str) -> list[Step]:
    """Return the commands between `<!-- run: scenario -->` and `<!-- end -->`."""
    text = PAGE.read_text(encoding="utf-8")
    part = text.split(f"<!-- run: {scenario} -->")[1].split("<!-- end -->")[0]
    steps: list[Step] = []
    for line in "\n".join(_BLOCK.findall(part)).splitlines():
        found = _PROMPT.match(line)
        if found:
            steps.append(Step(found[1], found[2], ()))
        elif line.strip():
            last = steps.pop()
            steps.append(Step(last.machine, last.line, (*last.shown, line)))
    assert steps, scenario
    return steps


@dataclass
class Lab:
    """Machines with a home each, and the two places outside: `usb` and `safe`."""

    place: Path
    invite: str = ""
    homes: set[Path] = field(default_factory=set)
    hosts: dict[str, str] = field(default_factory=dict)

    def home(self, machine: str) -> Path:
        """Return the home of a machine; each is called `node` in a directory of its own."""
        directory = self.place / machine
        if not directory.exists():
            directory.mkdir()
            for name in ("usb", "safe"):
                (directory / name).symlink_to(self.place / name)
        self.homes.add(directory / "node")
        return directory / "node"

    def play(self, scenario: str) -> None:
        """Run a scenario of the page."""
        for step in steps_of(scenario):
            self.step(step)

    def step(self, step: Step) -> None:
        """Run one command; it must succeed and show what the page shows."""
        output = self.run(step.machine, *step.line.split())
        for line in step.shown:
            pattern = ".*".join(re.escape(part.strip()) for part in line.split("..."))
            assert re.search(pattern, output), (step, output)
        if step.line.startswith("certmesh invite create"):
            found = re.search(r"cm1:\S+", output)
            assert found is not None, output
            self.invite = found.group()
        if step.line == "certmesh up":
            self.settled(step.machine)

    def run(self, machine: str, *words: str) -> str:
        """Run a command line on a machine and return what it printed."""
        done = self.tried(machine, *words)
        assert done.returncode == 0, (machine, words, done.returncode, done.stdout, done.stderr)
        return done.stdout

    def tried(self, machine: str, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command line, whatever comes of it."""
        home = self.home(machine)
        program, *rest = [self.invite if word == "INVITE" else word for word in words]
        argv = [program, *rest]
        if program == "certmesh":
            first = [sys.executable, "-m", "broker.cli", "--home", str(home), "--no-input"]
            argv = [*first, *rest, *self._doors(machine, rest)]
        return subprocess.run(
            argv,
            cwd=home.parent,
            env={**os.environ, "CERTMESH_OPERATOR": "ann", "PYTHONPATH": str(PAGE.parents[1])},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def _doors(self, machine: str, words: list[str]) -> list[str]:
        """Return what a test has to add to a page for people: addresses and hurry."""
        if words[0] not in {"init", "join"}:
            return []
        host = self.hosts.get(machine, machine)
        added = ["--node-name", host, "--listen", ADDRESSES[host]]
        added += ["--enroll-port", str(ENROLL_PORT), "--mesh-port", str(MESH_PORT)]
        for setting in SETTINGS:
            added += ["--setting", setting]
        return [*added, "--profile", "solo"] if words[0] == "init" else added

    def settled(self, machine: str) -> None:
        """Wait until a node is content."""
        eventually(lambda: self.tried(machine, "certmesh", "status").returncode == 0, within_s=60)

    def found(self, *members: str) -> None:
        """Make a mesh on atlas with these members, by the page's own first commands."""
        self.run("atlas", "certmesh", "init", "home", "--kit", "safe/kit.txt")
        self.run("atlas", "certmesh", "up")
        for host in members:
            self.step(Step("atlas", f"certmesh invite create {host}", ()))
            self.run(host, "certmesh", "join", "INVITE")
            self.run(host, "certmesh", "up")
            self.settled(host)
        self.settled("atlas")

    def lose(self, machine: str) -> None:
        """Destroy a machine: nothing says goodbye, nothing is left."""
        home = self.home(machine)
        pid = int((home / "run" / "supervisord.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{pid}").exists(), within_s=10)
        shutil.rmtree(home.parent)
        self.homes.discard(home)

    def end(self) -> None:
        """Stop whatever runs."""
        for home in sorted(self.homes | {self.place / "atlas" / "node.old"}):
            if (home / "certmesh.toml").exists():
                argv = [sys.executable, "-m", "broker.cli", "--home", str(home), "down"]
                subprocess.run(argv, capture_output=True, check=False, timeout=60)
        shutil.rmtree(self.place, ignore_errors=True)


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A place for machines, below a short path."""
    found = Lab(Path(tempfile.mkdtemp(prefix="cmr-", dir="/tmp")))
    for name in ("usb", "safe"):
        (found.place / name).mkdir(mode=0o700)
    try:
        yield found
    finally:
        found.end()


def test_what_has_to_be_done_before_anything_is_lost(lab: Lab) -> None:
    """Kit, backup, verification, rehearsal: on a machine, and on one that has nothing yet."""
    lab.play("before")
    assert not (lab.home("new") / "membership.json").exists()


def test_a_lost_primary_without_a_standby_comes_back_from_backup_and_kit(lab: Lab) -> None:
    """And whoever was revoked after the backup stays out: a member told of it."""
    lab.found("birch", "cedar")
    lab.run("atlas", "certmesh", "backup", "create", "-o", "usb/home.cmbackup")
    lab.run("atlas", "certmesh", "member", "revoke", "cedar", "--yes", "--wait", "20s")
    lab.lose("atlas")
    lab.hosts["new"] = "atlas"
    lab.play("no-standby")
    assert "revoked" in lab.run("new", "certmesh", "member", "show", "cedar")
    lab.settled("birch")


def test_a_lost_primary_with_a_standby_is_replaced_by_a_new_machine(lab: Lab) -> None:
    """Nobody restores anything; the mesh never stopped."""
    lab.found("birch", "cedar")
    lab.run("atlas", "certmesh", "standby", "nominate", "birch", "--wait", "60s")
    lab.lose("atlas")

    def leads() -> bool:
        shown = lab.tried("birch", "certmesh", "standby", "list", "--json").stdout
        return '"phase": "serving"' in shown

    eventually(leads, within_s=60)
    lab.hosts["new"] = "atlas"
    lab.play("with-standby")
    assert "standby" in lab.run("birch", "certmesh", "standby", "list")


def test_a_lost_passphrase_is_replaced_with_the_kit(lab: Lab) -> None:
    """The mesh goes on under the same pin."""
    lab.found()
    (lab.place / "safe" / "new").write_text("correct horse battery staple\n")
    (lab.place / "safe" / "new").chmod(0o600)
    lab.play("passphrase")


def test_a_member_comes_back_and_a_stolen_one_does_not(lab: Lab) -> None:
    """A lost disk is a rejoin; a theft is a revocation."""
    lab.found("cedar")
    lab.lose("cedar")
    lab.play("member")
    lab.play("stolen")
    assert "revoked" in lab.run("atlas", "certmesh", "member", "show", "cedar")


def test_the_page_has_no_commands_that_nobody_runs() -> None:
    """A block outside a scenario would rot unseen."""
    text = PAGE.read_text(encoding="utf-8")
    inside = "".join(re.findall(r"<!-- run: .*?<!-- end -->", text, re.DOTALL))
    assert len(_BLOCK.findall(text)) == len(_BLOCK.findall(inside))
    names = set(re.findall(r"<!-- run: ([\w-]+) -->", text))
    assert names == {"before", "no-standby", "with-standby", "passphrase", "member", "stolen"}
