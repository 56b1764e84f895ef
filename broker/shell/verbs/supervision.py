"""The watchdog's report, and whom it must end."""

from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.wire.supervision import Overdue, OverdueView, ReportProcesses


def report_processes(
    state: BrokerState, _batch: Batch, caller: Caller, request: ReportProcesses
) -> OverdueView:
    """Keep the process table; return the processes that broke their promise."""
    state.follow.processes = {line.program: line for line in request.processes}
    return OverdueView(
        tuple(
            Overdue(w.instance, w.pid, w.boot_id, caller.now_ms - w.seen_ms)
            for w in state.workers.overdue()
        )
    )
