"""The process that asks a person is frozen or dead: nobody is let in, and everybody is told."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.cli.demo.steps_join import totp_code
from broker.runtime.exits import Exit
from tests.faults.pool import SETTINGS, Pool
from tests.faults.supervised import INJECTED, Sick
from tests.support import eventually

PORT = 32140
PATIENCE = 'enrollment.approval_ttl="8s"'
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(240)]


@dataclass(frozen=True)
class Door:
    """A running node that asks a person about each join by code, and what a joiner needs."""

    sick: Sick
    uri: str
    pin: str

    def ask_to_join(self, home: Path) -> tuple[int, str]:
        """Join with the present code; return exit status and error code."""
        words = ["--url", f"https://127.0.0.1:{PORT}", "--pin", self.pin, "--totp", "-"]
        host = Pool(home, name="nas")
        done = host.run("join", *words, "--node-name", "nas", text=totp_code(self.uri))
        answer = json.loads(done.stdout or "{}")
        return done.returncode, str(answer.get("code", ""))

    def state(self) -> str:
        """Return how the request of `nas` stands; empty before it came."""
        rows = self.sick.pool.certmesh("approval", "list", "--all")["approvals"]
        return next((str(row["state"]) for row in rows if row["host"] == "nas"), "")


@pytest.fixture
def door() -> Iterator[Door]:
    """An open door for codes, behind which somebody has to be asked, within eight seconds."""
    directory = Path(tempfile.mkdtemp(prefix="cmf-dying-", dir="/tmp"))
    environment = {"PYTHONPATH": str(INJECTED), "DYING_DIRECTORY": str(directory)}
    home = Path(tempfile.mkdtemp(prefix="cmf-", dir="/tmp"))
    sick = Sick(Pool(home, port=PORT, environment=environment), directory)
    words = ["--node-name", "atlas", "--listen", "127.0.0.1", "--enroll-port", str(PORT)]
    words += ["--mesh-port", str(PORT + 1)]
    for setting in (*SETTINGS, PATIENCE):
        words += ["--setting", setting]
    try:
        made = sick.pool.certmesh("init", "pool", *words)
        sick.pool.certmesh("up")
        sick.settle()
        sick.pool.certmesh("enrollment", "open")
        pin = str(sick.pool.certmesh("status")["node"]["mesh"]["pin"])
        yield Door(sick, str(made["totp_uri"]), pin)
    finally:
        sick.remove()


@pytest.mark.parametrize("harm", ["frozen", "dead"])
def test_nobody_is_let_in_while_the_one_who_asks_is_away(door: Door, harm: str) -> None:
    """A frozen one is replaced, a dead one is told of; the request ends in time (row 47, P14)."""
    sick = door.sick
    before = sick.pool.pids()["approval"]
    if harm == "dead":
        sick.infect("approval", 0.01)
    os.kill(before, signal.SIGSTOP if harm == "frozen" else signal.SIGKILL)
    host = Path(tempfile.mkdtemp(prefix="cmf-", dir="/tmp"))
    try:
        assert door.ask_to_join(host) == (Exit.WAITING, "")
        assert door.state() == "pending"
        eventually(lambda: door.state() == "expired", within_s=60)
        told = sick.pool.run("status")
        members = {line["host"] for line in sick.pool.certmesh("member", "list")["members"]}
        assert members == {"atlas"}
        if harm == "dead":
            assert told.returncode == Exit.ATTENTION
            assert "approval" in told.stdout
            assert sick.pool.run("ps").returncode == Exit.ATTENTION
        else:
            row = eventually(lambda: (r := sick.row("approval"))["last_exit"] and r, within_s=30)
            assert isinstance(row, dict)
            assert row["last_exit"].startswith("killed: silent for ")
        # The same command again claims the old request: refused, and the next one asks anew.
        assert door.ask_to_join(host) == (Exit.REFUSED, "approval_expired")
        assert not (host / "membership.json").exists()
    finally:
        shutil.rmtree(host, ignore_errors=True)
