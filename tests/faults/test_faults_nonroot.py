"""A whole node under an unprivileged user: enrol, renew with a hook, restart, stop.

Where the interpreter lies below a home that nobody else may enter, it is shown at the same place in
a mount namespace of our own; the machine's own mounts stay as they are.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.faults.pool import SETTINGS
from tests.support import eventually

PORT = 32130
NOBODY = 65534
ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.faults,
    pytest.mark.mesh,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else"),
]
SHOW = """
set -e
for place in {places}; do
    mkdir -p {stage}$place
    mount --bind $place {stage}$place
done
mount -t tmpfs -o mode=0755 tmpfs {closed}
for place in {places}; do
    mkdir -p $place
    mount --bind {stage}$place $place
done
exec "$@"
"""


@dataclass(frozen=True)
class Unprivileged:
    """A home of `nobody`, and how to run a command as that user there."""

    home: Path
    stage: Path

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run `certmesh` as nobody, without any capability."""
        who = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        who += ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
        command = [sys.executable, "-m", "broker.cli", "--home", str(self.home), "--no-input"]
        environment = {"HOME": str(self.home), "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            [*self._shown(), *who, *command, "--operator", "faults", *words, "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
            cwd="/",
        )

    def certmesh(self, *words: str) -> dict[str, Any]:
        """Run a command that must succeed."""
        done = self.run(*words)
        assert done.returncode == 0, (words, done.returncode, done.stdout, done.stderr)
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def _shown(self) -> list[str]:
        """Return what shows the interpreter to others, nothing where they may read it anyway."""
        interpreter = Path(sys.executable).resolve()
        closed = [p for p in interpreter.parents if not p.stat().st_mode & stat.S_IXOTH]
        if not closed:
            return []
        places = " ".join({str(interpreter.parents[1]), str(Path(sys.base_prefix).resolve())})
        script = SHOW.format(places=places, stage=self.stage, closed=closed[-1])
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]


@pytest.fixture
def node() -> Iterator[Unprivileged]:
    """A home that belongs to nobody, and no node in it yet."""
    home = Path(tempfile.mkdtemp(prefix="cmf-", dir="/tmp"))
    stage = Path(tempfile.mkdtemp(prefix="cmf-stage-", dir="/tmp"))
    os.chown(home, NOBODY, NOBODY)
    found = Unprivileged(home, stage)
    try:
        if found.run("version").returncode != 0:
            pytest.skip("the interpreter cannot be shown to another user on this machine")
        yield found
    finally:
        found.run("down")
        shutil.rmtree(home, ignore_errors=True)
        shutil.rmtree(stage, ignore_errors=True)


def owners(home: Path) -> set[int]:
    """Return who owns the processes of a node."""
    found = set()
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(home).encode() in command.read_bytes():
                found.add(command.parent.stat().st_uid)
        except OSError:
            continue
    return found


def test_a_whole_node_works_without_any_right_of_root(node: Unprivileged) -> None:
    """Ports above 1024, hooks as the node's own user, nothing owned by anybody else."""
    words = ["--node-name", "atlas", "--listen", "127.0.0.1"]
    words += ["--enroll-port", str(PORT), "--mesh-port", str(PORT + 1)]
    for setting in SETTINGS:
        words += ["--setting", setting]
    node.certmesh("init", "pool", *words)
    settings = node.home / "certmesh.toml"
    command = ["/bin/sh", "-c", f"id -u > {node.home}/hook.txt"]
    entry = f'\n[[hook]]\nname = "web"\ncommand = {json.dumps(command)}\n'
    settings.write_text(settings.read_text() + entry)
    node.certmesh("up")
    eventually(lambda: node.run("status").returncode == 0, within_s=60)
    assert owners(node.home) == {NOBODY}
    eventually(lambda: node.run("cert", "renew").returncode == 0, within_s=30)
    eventually(lambda: (node.home / "hook.txt").read_text().strip() == str(NOBODY), within_s=30)
    assert {path.lstat().st_uid for path in node.home.rglob("*")} - {0} == {NOBODY}

    second = node.run("up")
    assert second.returncode == 0
    node.certmesh("ca", "lock")
    assert node.run("status").returncode == 3
    assert node.certmesh("down")["stopped"]
    assert owners(node.home) == set()


def test_a_log_directory_that_takes_no_file_is_named(node: Unprivileged) -> None:
    """`certmesh up` must not end in a traceback or in a silent wait (row 15)."""
    words = ["--listen", "127.0.0.1", "--enroll-port", str(PORT), "--mesh-port", str(PORT + 1)]
    node.certmesh("init", "pool", *words, "--setting", "ca.kdf_memory=8388608")
    log = node.home / "log"
    os.chown(log, 0, 0)
    log.chmod(0o555)
    done = node.run("up")
    assert done.returncode == 1
    refused = json.loads(done.stdout)
    assert str(log) in refused["detail"] + refused["hint"]
    os.chown(log, NOBODY, NOBODY)
    log.chmod(0o700)
    node.certmesh("up")
