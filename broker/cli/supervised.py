"""The processes of a node as supervisord and the run directory know them, without the broker.

For the moment when the console or the broker is what does not run: state, pid, restarts, how each
ended. What only a loop itself knows, its last success and next run, is missing.
"""

from broker.cli.supervisor import Program, Supervisor
from broker.clock import boottime_ms
from broker.runtime.endings import endings
from broker.runtime.paths import Paths
from broker.runtime.restraint import Starts
from broker.runtime.watchbook import Counted, read_watchbook
from broker.units import UnixSeconds
from broker.wire.node import WorkersView, WorkerView
from broker.wire.supervision import ProcessLine

BROKER = "broker"
WAITING = "BACKOFF"
RUNS = ("RUNNING", "STARTING")


def supervised_view(supervisor: Supervisor, paths: Paths) -> WorkersView | None:
    """Return what is known without asking the broker; None when supervisord does not answer."""
    programs, pid = supervisor.programs(), supervisor.pid()
    if programs is None or pid is None:
        return None
    counted = read_watchbook(paths.run, pid)
    said = endings(paths.log / "supervisord.log")
    lines = {}
    for program in programs:
        ending = said.get(program.name)
        words = ending.words if ending is not None else ""
        lines[program.name] = _line(program, counted.get(program.name, Counted()), words, paths)
    broker = lines.pop(BROKER, None)
    return WorkersView(
        workers=tuple(_view(line) for _, line in sorted(lines.items())),
        broker_pid=broker.pid if broker else 0,
        broker_uptime_ms=broker.uptime_ms if broker else 0,
        broker=broker,
    )


def _line(program: Program, counted: Counted, ending: str, paths: Paths) -> ProcessLine:
    """Return one process; what the watchdog saw says more than supervisord's log."""
    now_ms = boottime_ms()
    start = Starts(paths.home).of(program.name)
    waits_ms = start.wait_ms(now_ms) if start and program.state in RUNS else 0
    is_counted = bool(program.pid) and program.pid == counted.pid
    at = counted.ended_at if counted.ended else None
    return ProcessLine(
        program=program.name,
        pid=program.pid,
        state=WAITING if waits_ms else program.state,
        restarts=counted.restarts,
        exit_status=program.status,
        uptime_ms=max(0, now_ms - counted.since_ms) if is_counted else 0,
        last_exit=counted.ended if is_counted and counted.ended else ending,
        last_exit_at=UnixSeconds(at) if at is not None else None,
        next_start_ms=waits_ms or None,
        ends=start.ends_at(now_ms) if start is not None else 0,
    )


def _view(line: ProcessLine) -> WorkerView:
    return WorkerView(
        instance=line.program,
        service=line.program,
        pid=line.pid,
        liveness="unknown",
        supervisor=line.state,
        restarts=line.restarts,
        state="",
        last_success_at=None,
        last_error="",
        next_run_ms=None,
        silent_ms=0,
        uptime_ms=line.uptime_ms,
        last_exit=line.last_exit,
        last_exit_at=line.last_exit_at,
        next_start_ms=line.next_start_ms,
        ends=line.ends,
    )
