"""Processes that die again and again: bounded, visible, explained, and healed by one command."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.clock import boottime_ms
from broker.runtime.restraint import FREE_ENDS
from tests.faults.supervised import Sick
from tests.support import eventually, throughout

pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def sick() -> Iterator[Sick]:
    """A running node shared by the tests of this module; each leaves it healthy."""
    found = Sick.create(32110, 'broker.worker_dead_after="6s"')
    try:
        found.pool.certmesh("up")
        found.settle()
        yield found
    finally:
        found.remove()


def cpu_ms(pid: int) -> int:
    """Return how much processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 // os.sysconf("SC_CLK_TCK")


def test_a_process_that_dies_just_after_its_start_is_held_back_seen_and_explained(
    sick: Sick,
) -> None:
    """Supervisord alone would start it for ever, as fast as it can (row 9)."""
    pids = sick.pool.pids()
    sick.infect("heartbeat", 1.3)
    os.kill(pids["heartbeat"], signal.SIGKILL)
    waiting = eventually(
        lambda: (row := sick.row("heartbeat"))["supervisor"] == "BACKOFF" and row, within_s=60
    )
    assert isinstance(waiting, dict)
    assert waiting["last_exit"].startswith("exit status 1, ")
    assert waiting["last_exit_at"]
    assert waiting["next_start_s"] > 0

    broker, before, began_ms = pids["broker"], sick.starts("heartbeat"), boottime_ms()
    used_ms = cpu_ms(broker)
    throughout(lambda: sick.starts("heartbeat") - before <= 4, for_s=6)  # 1 + 2 + 4 s of waiting
    assert cpu_ms(broker) - used_ms < (boottime_ms() - began_ms) * 0.1
    told = sick.pool.run("status")
    assert told.returncode == 3
    assert "process heartbeat " in told.stdout
    assert "exit status 1, " in told.stdout
    assert sick.pool.run("ps").returncode == 3
    after = sick.pool.pids()
    assert {name for name in pids if after.get(name) != pids[name]} <= {"heartbeat"}

    sick.heal()
    sick.pool.certmesh("up")
    sick.settle()
    assert sick.row("heartbeat")["supervisor"] in {"STARTING", "RUNNING"}


def test_a_process_that_dies_at_once_ends_as_fatal_with_its_next_try(sick: Sick) -> None:
    """Visible, explained, and started again ever less often; then one command heals (row 9)."""
    sick.infect("approval", 0.01)
    os.kill(sick.pool.pids()["approval"], signal.SIGKILL)
    fatal = eventually(
        lambda: (row := sick.row("approval"))["supervisor"] in {"FATAL", "BACKOFF"} and row,
        within_s=60,
    )
    assert isinstance(fatal, dict)
    assert "exit status 1" in fatal["last_exit"]
    told = eventually(
        lambda: (done := sick.pool.run("status")).returncode == 3 and done, within_s=20
    )
    assert isinstance(told, subprocess.CompletedProcess)
    assert "process approval " in told.stdout
    sick.heal()
    sick.pool.certmesh("up")
    sick.settle()


def test_a_kill_from_outside_holds_nobody_back(sick: Sick) -> None:
    """Whatever killed it was not in the program, and the others wait for it (row 5)."""
    for _ in range(FREE_ENDS + 2):
        before = sick.pool.pids()["roster-sync"]
        os.kill(before, signal.SIGKILL)
        eventually(
            lambda before=before: sick.pool.pids().get("roster-sync", before) != before,  # type: ignore[misc]  # bound now
            within_s=20,
        )
    row = sick.row("roster-sync")
    assert row["next_start_s"] is None
    assert row["last_exit"] == "terminated by SIGKILL"
    sick.settle()


def test_a_process_out_of_memory_dies_alone_and_is_back(sick: Sick) -> None:
    """A limit per process costs that process only (row 17)."""
    pids = sick.pool.pids()
    sick.starve("renewal-1", 96)
    os.kill(pids["renewal-1"], signal.SIGKILL)
    eventually(lambda: sick.row("renewal-1")["last_exit"] == "exit status 1", within_s=40)
    assert "MemoryError" in sick.pool.log("renewal-1")
    after = eventually(lambda: len(now := sick.pool.pids()) == len(pids) and now, within_s=40)
    assert isinstance(after, dict)
    assert {name for name in pids if after[name] != pids[name]} == {"renewal-1"}
    sick.settle()


def test_starts_and_kills_of_everything_leave_nothing_behind(sick: Sick) -> None:
    """Storms of whole pools: it comes up each time, and no file or descriptor is left (row 10)."""
    pool = sick.pool
    files: list[set[str]] = []
    for turn in range(int(os.environ.get("STORMS", "4"))):
        if turn % 2:
            os.kill(pool.supervisord_pid(), signal.SIGKILL)
        else:
            for pid in list(pool.pids().values())[turn % 3 :: 2]:
                os.kill(pid, signal.SIGKILL)
            pool.run("down")
        pool.certmesh("up")
        sick.settle()
        files.append({path.name for path in pool.home.rglob("*") if "log" not in path.parts})
        broker = pool.pids()["broker"]
        assert len(list(Path(f"/proc/{broker}/fd").iterdir())) < 100
    assert len(files[-1] - files[0]) <= 2, files[-1] - files[0]
    assert pool.certmesh("audit", "verify")
