"""Processes that supervisord runs and this broker has never heard: hung since before it started.

A process introduces itself to every new broker and is judged by its promises from then on. One that
hung before it could makes none, so it would never break one. It counts as overdue when it and the
broker have both been there for longer than any start takes.
"""

from collections.abc import Collection, Iterable

from broker.units import Millis
from broker.wire.ids import Service
from broker.wire.supervision import Overdue, ProcessLine

PATIENCE_MS = 60_000
"""For a start, the wait for a broker included; who waits before its work is not `RUNNING` here."""

_HERE = frozenset(Service) - {Service.REMOTE_RENEWAL}
"""A worker for another machine's broker introduces itself there."""


def unheard(
    lines: Iterable[ProcessLine], known: Collection[int | str], broker_ms: Millis
) -> tuple[Overdue, ...]:
    """Return the workers that had the time to introduce themselves and did not.

    Args:
        lines: Supervisord's table; programs that are none of ours are left alone.
        known: Pids of the processes that this broker knows, in whatever state, and names of those
            that live: below a wrapper a process has another pid than supervisord says.
        broker_ms: For how long this broker runs.
    """
    if broker_ms < PATIENCE_MS:
        return ()
    return tuple(
        Overdue(line.program, line.pid, "", min(line.uptime_ms, broker_ms))
        for line in lines
        if line.state == "RUNNING"
        and line.uptime_ms >= PATIENCE_MS
        and line.pid not in known
        and line.program not in known
        and _is_worker(line.program)
    )


def _is_worker(program: str) -> bool:
    name, _, number = program.rpartition("-")
    return program in _HERE or (number.isdecimal() and name in _HERE)
