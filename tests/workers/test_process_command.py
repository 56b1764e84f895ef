"""A whole worker process, started as supervisord starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.clock import boottime_ms
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.wire.liveness import Beat, Goodbye, Ready
from broker.wire.supervision import ReportProcesses
from tests.stub_broker import StubBroker
from tests.support import eventually

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
from broker.wire.ids import Service
from workers.process import Outcome, run_worker
class Loop:
    service, wakes, period_ms = Service.HEARTBEAT, (), 100
    def round(self, desk):
        {body}
        return Outcome()
sys.exit(run_worker(lambda settings, paths: Loop()))
"""


def _start(
    paths: Paths, body: str, *flags: str, name: str = "heartbeat-7"
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-c", WORKER.format(body=body), str(paths.settings), *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "SUPERVISOR_PROCESS_NAME": name},
    )


def _end(process: "subprocess.Popen[bytes]") -> list[dict[str, Any]]:
    """Return the process's log lines, after its end."""
    output, _ = process.communicate(timeout=20)
    return [msgspec.json.decode(line) for line in output.splitlines()]


def test_a_worker_says_goodbye_and_exits_0_within_a_second_of_sigterm(paths: Paths) -> None:
    """Supervisord waits for each program in turn: a slow one holds up the whole stop."""
    with StubBroker(paths, beat_every_ms=50) as broker:
        worker = _start(paths, "pass")
        eventually(lambda: len(broker.seen(Beat)) > 5, within_s=20)

        worker.send_signal(signal.SIGTERM)
        began_ms = boottime_ms()
        worker.wait(5)

        assert boottime_ms() - began_ms < 1000
        assert worker.returncode == Exit.OK
        eventually(lambda: broker.seen(Goodbye) == [Goodbye(reason="stopping")])
        lines = _end(worker)
        assert broker.registered == []
    names = [line["event"] for line in lines]
    assert names == ["process.started", "process.ready", "process.stopping"]
    assert {line["worker"] for line in lines} == {"heartbeat-7"}


def test_a_worker_started_by_a_person_leaves_the_supervised_one_its_name(paths: Paths) -> None:
    """Two lifetimes of one instance: the broker would take the second for its restart."""
    with StubBroker(paths) as broker:
        by_hand = _start(paths, "pass", "--once", name="")
        _end(by_hand)
        (ready,) = broker.seen(Ready)
    assert by_hand.returncode == Exit.OK
    assert ready.instance == f"heartbeat-once-{by_hand.pid}"


def test_a_worker_with_a_bug_dies_and_leaves_its_traceback(paths: Paths) -> None:
    """Exit 1; supervisord starts a new one."""
    with StubBroker(paths):
        worker = _start(paths, "return 1 / 0", "--once")
        lines = _end(worker)
    assert worker.returncode == Exit.FAILED
    assert lines[-1]["event"] == "process.crashed"
    assert "ZeroDivisionError" in lines[-1]["traceback"]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_the_watchdog_can_look_once(paths: Paths, state: str) -> None:
    """Without supervisord it says so and fails; with one it reports the table and is done."""
    table = paths.home / "one.conf"
    table.write_text(
        f"[unix_http_server]\nfile={paths.supervisor_socket}\n"
        f"[supervisord]\nlogfile={paths.log}/s.log\npidfile={paths.run}/s.pid\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        "[program:nap]\ncommand=sleep 1000\nstdout_logfile=NONE\nstderr_logfile=NONE\n"
    )
    program = str(Path(sys.executable).with_name("supervisord"))
    command = [program, "-n", "-c", str(table)] if state == "present" else ["sleep", "1000"]
    supervisord = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        with StubBroker(paths) as broker:
            if state == "present":
                eventually(paths.supervisor_socket.exists, within_s=20)
            look = subprocess.run(
                [sys.executable, "-m", "workers.watchdog", str(paths.settings), "--once"],
                cwd=ROOT,
                timeout=20,
                check=False,
            )
            names = [ready.instance for ready in broker.seen(Ready)]
            reports = (
                eventually(lambda: broker.seen(ReportProcesses)) if not look.returncode else []
            )
    finally:
        supervisord.terminate()
        supervisord.wait(20)
    assert look.returncode == (Exit.OK if state == "present" else Exit.FAILED)
    assert all(name.startswith("watchdog-once-") for name in names)
    assert [line.program for report in reports for line in report.processes] == (
        ["nap"] if state == "present" else []
    )
