"""`certmesh ps`: the processes of this node, with or without a broker to ask.

Exit: 0 when all is well, 3 when a process is down, waits to be started again, or when the broker
could not be asked and supervisord's own table had to do; 4 when nothing runs.
"""

import click

from broker.cli.options import MeshCommand, pass_session
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import ago, span
from broker.cli.supervised import supervised_view
from broker.cli.supervisor import Supervisor
from broker.clock import wall_s
from broker.errors import ForbiddenError, MeshError
from broker.runtime.exits import Exit
from broker.wire.node import WorkersView, WorkerView
from broker.wire.supervision import ProcessLine

HEADINGS = (
    "PROCESS",
    "STATE",
    "PID",
    "RESTARTS",
    "UPTIME",
    "LAST SUCCESS",
    "NEXT RUN",
    "NOTE",
)
DOWN = frozenset({"FATAL", "BACKOFF", "STOPPED", "UNKNOWN"})
ENDS_TOLD = 3
"""Quick ends in a row that a person should know of, as in `certmesh status`."""

LATE_MS = 1000
ASK_MS = 6000
"""A broker that hangs must not keep anybody from looking at the table for long."""

Row = tuple[str, ...]


@click.command(cls=MeshCommand)
@pass_session
def ps(session: Session) -> int:
    """Show the processes: state, restarts, last success, next run.

    Exit: 0 healthy, 3 a process is down or the broker cannot be asked, 4 not running.
    """
    view, silence = _view(session)
    down = _down(view)
    if session.json:
        source = "supervisord" if silence else "broker"
        session.screen.object("ps", public(view) | {"source": source, "down": list(down)})
    else:
        now = wall_s()
        rows = [_broker_row(view, now, knows=not silence)]
        session.screen.table(HEADINGS, rows + [_row(line, now) for line in view.workers])
    if silence:
        session.screen.warn(f"{silence}; this is what supervisord knows")
    return Exit.ATTENTION if down or silence else Exit.OK


def _view(session: Session) -> tuple[WorkersView, str]:
    """Return the processes, and why the broker did not tell of them; empty when it did.

    Raises:
        MeshError: Nobody knows anything: nothing runs, or it is another user's.
    """
    try:
        return session.api(ASK_MS).get("/v1/workers", WorkersView), ""
    except ForbiddenError:
        raise
    except MeshError as error:
        view = supervised_view(Supervisor(session.paths), session.paths)
        if view is None:
            raise
        return view, f"the broker cannot be asked ({error.detail})"


def _down(view: WorkersView) -> tuple[str, ...]:
    """Return the names of processes that do not do their work, worst seen from outside first."""
    broker = [view.broker.program] if view.broker and view.broker.state in DOWN else []
    bad = (line for line in view.workers if _is_down(line))
    return (*broker, *(line.instance for line in bad))


def _is_down(line: WorkerView) -> bool:
    """Return whether it does no work, or did not for long the last few times."""
    return line.supervisor in DOWN or line.liveness == "dead" or line.ends >= ENDS_TOLD


def _broker_row(view: WorkersView, now: int, *, knows: bool) -> Row:
    """Return the broker's line; whoever `knows` it has just answered."""
    line = view.broker
    state = "ready" if knows else (line.state if line else "-")
    return (
        "broker",
        state,
        str(view.broker_pid) if view.broker_pid else "-",
        str(line.restarts) if line else "-",
        span(view.broker_uptime_ms / 1000) if view.broker_pid else "-",
        "now" if knows else "-",
        "-",
        _before(line, now) if line else "",
    )


def _row(line: WorkerView, now: int) -> Row:
    return (
        line.instance,
        _state(line),
        str(line.pid) if line.pid else "-",
        str(line.restarts),
        span(line.uptime_ms / 1000) if line.uptime_ms else "-",
        ago(line.last_success_at, now),
        _next_run(line),
        "; ".join(filter(None, (_says(line), _before(line, now)))),
    )


def _says(line: WorkerView) -> str:
    """Return what the loop says of itself; one that is down says nothing any more."""
    return "" if line.supervisor in DOWN else line.last_error or line.state


def _state(line: WorkerView) -> str:
    """Return what the broker and supervisord say of it, shortest when they agree."""
    if line.liveness == "unknown" or line.supervisor in DOWN:
        return line.supervisor
    known = line.supervisor in ("", "RUNNING")
    return line.liveness if known else f"{line.liveness} ({line.supervisor})"


def _next_run(line: WorkerView) -> str:
    """Return when the loop works again, or by how much it is late."""
    if line.next_start_ms is not None:
        return f"start in {span(line.next_start_ms / 1000)}"
    if line.next_run_ms is None:
        return "-"
    left_ms = line.next_run_ms - line.silent_ms
    return f"late {span(-left_ms / 1000)}" if left_ms <= -LATE_MS else span(max(0, left_ms) / 1000)


def _before(line: WorkerView | ProcessLine, now: int) -> str:
    """Return how the process before this one ended; nothing before its first restart."""
    if not line.last_exit or not (line.restarts or line.next_start_ms is not None or not line.pid):
        return ""
    when = f", {ago(line.last_exit_at, now)}" if line.last_exit_at is not None else ""
    return f"before: {line.last_exit}{when}" if line.pid else f"{line.last_exit}{when}"
