"""What the watchdog tells the broker, and whom it must kill."""

from broker.wire.base import Body, Reply, Request
from broker.wire.ids import Count, Text, UnixSeconds


class ProcessLine(Body, frozen=True):
    """One supervised process: supervisord's words, counted restarts.

    `state` is `BACKOFF` also while a process that ended again and again waits before it begins its
    work; `next_start_ms` is then the time until it does. `last_exit` says how the one before ended,
    `last_exit_at` when, `uptime_ms` how long this one runs, `ends` how many ended quickly in a row;
    it is 0 again once one has worked for a minute.
    """

    program: Text
    pid: Count
    state: Text
    restarts: Count
    exit_status: int
    uptime_ms: Count = 0
    last_exit: Text = ""
    last_exit_at: UnixSeconds | None = None
    next_start_ms: Count | None = None
    ends: Count = 0


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
