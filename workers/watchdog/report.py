"""What the watchdog tells about each process: how long it runs, how the one before ended, and why.

Values in, values out. Supervisord forgets how a process ended as soon as the next one runs, and it
never knew why the watchdog killed one: both are kept here, by program.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from broker.runtime.endings import Ending
from broker.runtime.restraint import Start
from broker.units import Millis, UnixSeconds
from broker.wire.supervision import ProcessLine
from workers.watchdog.logic import ALIVE, Repair, Row, Tally

UNKNOWN = "nobody saw how"
BACKOFF = "BACKOFF"


@dataclass(frozen=True, slots=True)
class Past:
    """How process `pid` of a program ended, and when that was noticed."""

    pid: int
    words: str
    at: UnixSeconds | None


def has_ended(row: Row, tally: Tally | None, past: Past | None) -> bool:
    """Return whether the process of this tally is gone and nobody has noted it yet."""
    if tally is None or not tally.pid:
        return row.pid == 0 and row.state not in ALIVE and past is None
    return row.pid != tally.pid and (past is None or past.pid != tally.pid)


@dataclass(frozen=True, slots=True)
class Found:
    """What one look found.

    Attributes:
        rows: Supervisord's table.
        tallies: Restarts, this look counted.
        pasts: How processes ended.
        repairs: When programs that supervisord gave up are started again.
        starts: What programs say about their own start, of those that run for a short time.
    """

    rows: tuple[Row, ...]
    tallies: Mapping[str, Tally]
    pasts: Mapping[str, Past]
    repairs: Mapping[str, Repair] = field(default_factory=dict)
    starts: Mapping[str, Start] = field(default_factory=dict)

    def lines(self, now_ms: Millis) -> tuple[ProcessLine, ...]:
        """Return the report for the broker."""
        return tuple(self._line(row, now_ms) for row in self.rows)

    def _line(self, row: Row, now_ms: Millis) -> ProcessLine:
        tally, past = self.tallies[row.program], self.pasts.get(row.program)
        start, repair = self.starts.get(row.program), self.repairs.get(row.program)
        waits_ms = start.wait_ms(now_ms) if start and row.state in ALIVE else 0
        next_start_ms = waits_ms or None
        if repair is not None and row.state == "FATAL":
            next_start_ms = max(0, repair.due_ms - now_ms)
        ends = start.ends_at(now_ms) if start is not None else 0
        again = f", {ends} times in a row" if ends > 1 and past is not None else ""
        return ProcessLine(
            program=row.program,
            pid=row.pid,
            state=BACKOFF if waits_ms else row.state,
            restarts=tally.restarts,
            exit_status=row.exit_status,
            uptime_ms=max(0, now_ms - tally.since_ms) if row.pid else 0,
            last_exit=past.words + again if past is not None else "",
            last_exit_at=past.at if past is not None else None,
            next_start_ms=next_start_ms,
            ends=ends,
        )


def note_ends(
    pasts: Mapping[str, Past],
    ended: Iterable[tuple[str, int]],
    said: tuple[Mapping[str, Ending], Mapping[int, str]],
    now: UnixSeconds,
) -> dict[str, Past]:
    """Return how processes ended, those in `ended` (program, pid) included.

    Args:
        pasts: What was known.
        ended: Who is gone since the last look; pid 0 for one that was gone before the first.
        said: Supervisord's words by program, and by pid why the watchdog killed somebody.
        now: When they were missed.
    """
    words, killed = said
    noted = dict(pasts)
    for program, pid in ended:
        ending = words.get(program)
        why = killed.get(pid) or (ending.words if ending else UNKNOWN)
        noted[program] = Past(pid, why, now if pid else None)
    return noted
