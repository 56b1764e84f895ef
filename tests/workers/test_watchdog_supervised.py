"""The watchdog under a real supervisord, with tiny programs in place of the real ones.

The broker is a stub in this process; supervisord's `broker` program is only something to kill.
"""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from broker.clock import boottime_ms
from broker.errors import NotPrimaryError
from broker.runtime.paths import Paths
from broker.wire.base import Reply
from broker.wire.liveness import Beat, Ready
from broker.wire.standby import StepDown
from broker.wire.supervision import Overdue, OverdueView, ProcessLine, ReportProcesses
from tests.stub_broker import StubBroker
from tests.support import eventually, throughout
from workers.watchdog.logic import Row
from workers.watchdog.table import StoppingError, Table

ROOT = Path(__file__).parents[2]
SLEEPER = "exec sleep 100000\n"
pytestmark = [pytest.mark.faults, pytest.mark.timeout(90)]


@dataclass
class Pool:
    """A running supervisord with the shipped process table and sleeping programs."""

    paths: Paths
    broker: StubBroker
    supervisord: "subprocess.Popen[bytes]"
    table: Table

    def row(self, program: str) -> Row:
        """Return a program's row; asking wakes supervisord, so do not measure around it."""
        return next(row for row in self.table.rows() if row.program == program)

    def reported(self, program: str) -> ProcessLine | None:
        """Return the newest line about a program that the watchdog sent."""
        reports = self.broker.seen(ReportProcesses)
        lines = reports[-1].processes if reports else ()
        return next((line for line in lines if line.program == program), None)

    def children(self) -> set[int]:
        """Return supervisord's child pids, without waking it."""
        pid = self.supervisord.pid
        return {int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}

    def log(self) -> list[str]:
        """Return the events in the watchdog's own log."""
        written = (self.paths.log / "watchdog.log").read_bytes().splitlines()
        return [msgspec.json.decode(line)["event"] for line in written]


def _conf(sleeper: Path) -> str:
    """Return the shipped table with sleeping programs and this interpreter."""
    text = (ROOT / "supervisord.conf").read_text()
    sleeping = f"command=sh {sleeper}"
    text = re.sub(r"command=python -m (?!workers\.watchdog)\S+", sleeping, text)
    return text.replace("command=python ", f"command={sys.executable} ")


@pytest.fixture
def pool(paths: Paths) -> Iterator[Pool]:
    """A pool whose programs all run."""
    sleeper = paths.home / "sleeper.sh"
    sleeper.write_text(SLEEPER)
    paths.supervisord.write_text(_conf(sleeper))
    with paths.settings.open("a") as file:
        file.write('[broker]\nworker_dead_after = "2s"\n')
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": ""}
    program = Path(sys.executable).with_name("supervisord")
    command = [str(program), "-n", "-c", str(paths.supervisord)]
    with StubBroker(paths) as broker:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        pool = Pool(paths, broker, process, Table(paths.supervisor_socket))
        try:
            eventually(lambda: (line := pool.reported("console")) and line.state == "RUNNING", 20)
            yield pool
        finally:
            process.terminate()
            process.wait(20)


def test_a_killed_program_is_back_within_a_few_ticks(pool: Pool) -> None:
    """Supervisord alone takes one or two seconds; any byte from a child wakes it."""
    delays = []
    for _ in range(4):
        eventually(lambda: pool.row("console").state == "RUNNING")
        before = pool.children()
        victim = pool.row("console").pid
        os.kill(victim, signal.SIGKILL)
        began_ms = boottime_ms()
        eventually(lambda before=before: pool.children() - before)  # type: ignore[misc]  # bound now
        delays.append(boottime_ms() - began_ms)
    assert sorted(delays)[1] <= 250, delays


def test_restarts_are_counted_and_reported_at_once(pool: Pool) -> None:
    """Supervisord itself keeps no count."""
    for count in (1, 2):
        eventually(lambda: pool.row("heartbeat").state == "RUNNING")
        os.kill(pool.row("heartbeat").pid, signal.SIGKILL)
        eventually(
            lambda count=count: (line := pool.reported("heartbeat")) and line.restarts == count  # type: ignore[misc]  # bound now
        )
    untouched = pool.reported("gateway")
    assert untouched is not None
    assert untouched.restarts == 0


def test_the_count_survives_the_watchdogs_own_death_and_includes_it(pool: Pool) -> None:
    """Killing the one who counts must not hide the crashes so far."""
    os.kill(pool.row("console").pid, signal.SIGKILL)
    eventually(lambda: (line := pool.reported("console")) and line.restarts == 1)

    os.kill(pool.row("watchdog").pid, signal.SIGKILL)

    eventually(lambda: (line := pool.reported("watchdog")) and line.restarts == 1, 10)
    console = pool.reported("console")
    assert console is not None
    assert console.restarts == 1
    assert len(pool.broker.seen(Ready)) == 2


def test_a_process_that_missed_its_deadline_is_killed_and_comes_back(pool: Pool) -> None:
    """Supervisord never notices a hang; SIGSTOP is the nastiest one."""
    hung = pool.row("gateway")
    os.kill(hung.pid, signal.SIGSTOP)
    line = Overdue(instance="gateway", pid=hung.pid, boot_id="b", silent_ms=5000)
    pool.broker.answers[ReportProcesses] = lambda _: OverdueView(overdue=(line,))

    eventually(lambda: pool.row("gateway").pid not in (0, hung.pid), 10)

    assert "worker.killed" in pool.log()
    assert pool.row("console").pid in pool.children()


def test_a_stale_accusation_kills_nobody(pool: Pool) -> None:
    """The named pid is another program's by now."""
    innocent = pool.row("gateway").pid
    line = Overdue(instance="console", pid=innocent, boot_id="b", silent_ms=5000)
    pool.broker.answers[ReportProcesses] = lambda _: OverdueView(overdue=(line,))

    throughout(lambda: innocent in pool.children(), for_s=3)
    assert "worker.killed" not in pool.log()


def test_a_broker_that_does_not_answer_is_killed(pool: Pool) -> None:
    """After `broker.worker_dead_after`, here two seconds."""
    hung = pool.row("broker").pid
    eventually(lambda: pool.broker.seen(Beat))

    pool.broker.silent = True

    eventually(lambda: pool.row("broker").pid not in (0, hung), 15)
    assert "worker.killed" in pool.log()


def test_a_fatal_program_is_started_again(pool: Pool) -> None:
    """Supervisord gives up for good after a few quick deaths; the cause may have gone since.

    (row 9)
    """
    sleeper = pool.paths.home / "sleeper.sh"
    sleeper.write_text("exit 1\n")
    os.kill(pool.row("failover").pid, signal.SIGKILL)
    eventually(lambda: pool.row("failover").state == "FATAL", 20)

    sleeper.write_text(SLEEPER)

    eventually(lambda: pool.row("failover").state == "RUNNING", 15)


def test_programs_stop_one_after_the_other_and_the_broker_after_the_workers(pool: Pool) -> None:
    """Doors first, broker after all loops; nobody is killed or started again on the way."""
    began_ms = boottime_ms()
    pool.supervisord.terminate()
    pool.supervisord.wait(20)
    took_ms = boottime_ms() - began_ms

    text = (pool.paths.log / "supervisord.log").read_text()
    stopped = re.findall(r"stopped: (\S+) \(", text)
    assert set(stopped[:2]) == {"gateway", "console"}
    assert stopped[-2:] == ["broker", "watchdog"]
    assert len(stopped) == 12
    assert "worker.killed" not in pool.log()
    assert took_ms < 3000
    with pytest.raises(Exception, match="supervisord"):
        pool.table.rows()


def test_the_broker_is_asked_to_step_down_while_the_pool_is_still_stopping(pool: Pool) -> None:
    """A planned stop of the primary must not cost the mesh a grace period."""
    broker = pool.row("broker").pid
    alive: list[bool] = []

    def note(_: StepDown) -> Reply:
        alive.append(broker in pool.children())
        raise NotPrimaryError("this is no primary")

    pool.broker.answers[StepDown] = note
    # Who has not introduced itself yet cannot ask for anything, and programs that sleep stop faster
    # than any real one: one of them takes its time.
    eventually(lambda: pool.broker.seen(Beat))
    slow = pool.row("roster-sync").pid
    os.kill(slow, signal.SIGSTOP)
    pool.supervisord.terminate()
    eventually(lambda: alive)
    os.kill(slow, signal.SIGCONT)
    pool.supervisord.wait(20)

    assert alive == [True]
    assert "supervisor.state_changed" in pool.log()


def test_a_hung_worker_is_left_to_supervisord_during_an_ordered_stop(pool: Pool) -> None:
    """Its stop timeout is longer than its liveness deadline on purpose: a hook is running."""
    slow = pool.row("roster-sync")
    os.kill(slow.pid, signal.SIGSTOP)

    def accuse(_: ReportProcesses) -> Reply:
        line = Overdue(instance="roster-sync", pid=slow.pid, boot_id="b", silent_ms=5000)
        return OverdueView(overdue=(line,))

    pool.supervisord.terminate()
    eventually(lambda: _is_stopping(pool.table))
    pool.broker.answers[ReportProcesses] = accuse
    throughout(lambda: slow.pid in pool.children(), for_s=2.5)
    os.kill(slow.pid, signal.SIGCONT)
    pool.supervisord.wait(20)
    assert "worker.killed" not in pool.log()


def _is_stopping(table: Table) -> bool:
    try:
        table.rows()
    except StoppingError:
        return True
    return False


def test_nothing_survives_the_death_of_supervisord(pool: Pool) -> None:
    """The watchdog dies with it; the sleepers of this test are not ours and are cleaned up."""
    watchdog = pool.row("watchdog").pid
    others = pool.children() - {watchdog}
    pool.supervisord.kill()
    pool.supervisord.wait(5)
    try:
        eventually(lambda: not _is_running(watchdog))
    finally:
        for pid in others:
            os.kill(pid, signal.SIGKILL)


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
