"""What the watchdog tells the broker, and whom it must kill."""

from broker.wire.base import Body, Reply, Request
from broker.wire.ids import Count, Text


class ProcessLine(Body, frozen=True):
    """One supervised process: supervisord's words, counted restarts."""

    program: Text
    pid: Count
    state: Text
    restarts: Count
    exit_status: int


class ReportProcesses(Request, frozen=True, tag="report-processes"):
    """The full process table as supervisord sees it."""

    processes: tuple[ProcessLine, ...]


class Overdue(Body, frozen=True):
    """A process that broke its promise: kill it, supervisord restarts it."""

    instance: Text
    pid: Count
    boot_id: Text
    silent_ms: Count


class OverdueView(Reply, frozen=True, tag="overdue-view"):
    """Processes past their liveness deadline."""

    overdue: tuple[Overdue, ...]
