"""`[users]` that changed while the node runs: refused by name before any program is touched."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from broker.cli.sameusers import refuse_other_users
from broker.cli.supervisor import Program, Supervisor
from broker.errors import SettingsError
from broker.runtime.settings import Settings, parse_settings

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root starts processes as others")
NOBODY_UID = 65_534


@dataclass
class Running:
    """A supervisord, this process, and what it has started."""

    started: dict[str, int]
    state: str = "RUNNING"

    def pid(self) -> int:
        """Return whose children they are."""
        return os.getpid()

    def programs(self) -> tuple[Program, ...]:
        """Return its table."""
        return tuple(
            Program(name, name, self.state, pid, 0, "", Path("/dev/null"))
            for name, pid in self.started.items()
        )


@pytest.fixture
def nobody() -> Iterator[int]:
    """Yield a process of another user."""
    with subprocess.Popen(["sleep", "60"], user=NOBODY_UID) as process:
        yield process.pid
        process.kill()


def _refused(running: Running, users: dict[str, str]) -> str:
    settings = parse_settings({"users": users}, "x") if users else Settings()
    try:
        refuse_other_users(cast("Supervisor", running), settings, "certmesh down")
    except SettingsError as error:
        return f"{error.detail}: {error.hint}"
    return ""


@AS_ROOT
def test_users_that_were_added_while_the_node_runs_are_refused() -> None:
    """The broker would start again as somebody who may not enter its directory: a dead node."""
    running = Running({"watchdog": os.getpid(), "gateway": os.getpid()})
    assert "gateway" in _refused(running, {"gateway": "nobody"})


@AS_ROOT
def test_users_that_were_taken_away_while_the_node_runs_are_refused(nobody: int) -> None:
    """Files would stay those of users whom nobody names any more."""
    assert "gateway" in _refused(Running({"gateway": nobody}), {})


@AS_ROOT
def test_a_node_whose_programs_are_the_users_of_the_settings_may_be_changed(nobody: int) -> None:
    """Also one that is to be started again, and a program that a person added."""
    running = Running({"watchdog": os.getpid(), "gateway": nobody, "my-own": nobody})
    assert _refused(running, {"gateway": "nobody"}) == ""
    assert _refused(Running({"gateway": os.getpid()}, "BACKOFF"), {"gateway": "nobody"}) == ""


def test_root_may_change_a_node_of_another_user() -> None:
    """Without `[users]` everybody is who started the node, whoever asks."""
    assert _refused(Running({"broker": os.getpid()}), {}) == ""
