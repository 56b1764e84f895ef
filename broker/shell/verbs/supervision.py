"""The watchdog's report, and whom it must end."""

from broker.core.unheard import unheard
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.units import Millis
from broker.wire.supervision import Overdue, OverdueView, ReportProcesses


def report_processes(
    state: BrokerState, _batch: Batch, caller: Caller, request: ReportProcesses
) -> OverdueView:
    """Keep the process table; return the processes that broke their promise, or never made one."""
    state.follow.processes = {line.program: line for line in request.processes}
    everyone = state.workers.everyone()
    living = {w.instance for w in everyone if w.liveness in {"ready", "suspect"}}
    known = living | {w.pid for w in everyone}
    running_ms = Millis(caller.now_ms - state.started_ms)
    late = (
        Overdue(w.instance, w.pid, w.boot_id, caller.now_ms - w.seen_ms)
        for w in state.workers.overdue()
    )
    return OverdueView((*late, *unheard(request.processes, known, running_ms)))
