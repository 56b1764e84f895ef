"""What the watchdog decides: who restarted, who must die, who gets another start.

Sans-IO: rows of supervisord's table, what the broker says, and `now` in; decisions out. The rules
that protect the innocent:

1. A process is killed only while supervisord says that this pid runs as this program; a program
   that is being stopped is left alone.
2. A silence must be confirmed by a second look: after a suspend of the machine everybody is late
   at once, and beats again a moment later.
3. The watchdog's own absence (it was stopped, or the machine slept) proves nothing about others.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from broker.units import Millis
from broker.wire.standby import StepDown
from broker.wire.supervision import Overdue

ALIVE = ("STARTING", "RUNNING")
CONFIRM_MS = 500
"""A silence must last over two looks at least this far apart."""

BOOT = Millis(0)
STALL_MS = 5000
"""A watchdog that did not look for this long forgets what it held against anybody."""

NEWBORN_MS = 120_000
"""A broker that never answered may still be checking a large ledger."""

REPAIR_MS_MIN = 1000
REPAIR_MS_MAX = 60_000
SETTLED_MS = 60_000
"""A repaired program that runs this long starts again with the shortest backoff."""


@dataclass(frozen=True, slots=True)
class Row:
    """One process in supervisord's table; `pid` is 0 while none runs."""

    program: str
    group: str
    pid: int
    state: str
    exit_status: int

    @property
    def address(self) -> str:
        """The name supervisord wants in calls."""
        return f"{self.group}:{self.program}"


@dataclass(frozen=True, slots=True)
class Tally:
    """The last pid seen of a program, since when, and how many there were after the first."""

    pid: int = 0
    restarts: int = 0
    since_ms: Millis = BOOT

    def seen(self, pid: int, now_ms: Millis = BOOT) -> "Tally":
        """Return the tally after a look that showed `pid`."""
        if pid in (0, self.pid):
            return self
        return Tally(pid, self.restarts + 1 if self.pid else self.restarts, now_ms)


def count_restarts(
    tallies: Mapping[str, Tally], rows: Iterable[Row], now_ms: Millis = BOOT
) -> dict[str, Tally]:
    """Return the tallies after one look at the table; programs that are gone are forgotten."""
    return {row.program: tallies.get(row.program, Tally()).seen(row.pid, now_ms) for row in rows}


@dataclass(frozen=True, slots=True)
class Repair:
    """Starts of a FATAL program so far, and when the next one is due."""

    attempts: int
    due_ms: Millis
    last_ms: Millis | None = None


def plan_repairs(
    repairs: Mapping[str, Repair], rows: Iterable[Row], now_ms: Millis
) -> tuple[dict[str, Repair], tuple[Row, ...]]:
    """Return the repairs under way, and the FATAL programs to start now.

    The wait doubles from one second to a minute with every attempt and starts over once the
    program has run for a minute.
    """
    plan: dict[str, Repair] = {}
    starts = []
    for row in rows:
        repair = repairs.get(row.program)
        if row.state == "FATAL":
            repair = repair or Repair(0, Millis(now_ms + REPAIR_MS_MIN))
            if now_ms >= repair.due_ms:
                starts.append(row)
                repair = _attempted(repair, now_ms)
        if repair is not None and not _has_settled(repair, row, now_ms):
            plan[row.program] = repair
    return plan, tuple(starts)


def _attempted(repair: Repair, now_ms: Millis) -> Repair:
    attempts = repair.attempts + 1
    wait_ms = min(REPAIR_MS_MIN << min(attempts, 16), REPAIR_MS_MAX)
    return Repair(attempts, Millis(now_ms + wait_ms), now_ms)


def _has_settled(repair: Repair, row: Row, now_ms: Millis) -> bool:
    since_ms = repair.due_ms if repair.last_ms is None else repair.last_ms
    return row.state == "RUNNING" and now_ms - since_ms >= SETTLED_MS


POOL_STOPS = "SUPERVISOR_STATE_CHANGE_STOPPING"
HAND_OVER_MS = 1000
"""Patience with a broker that is just being restarted; the pool stops meanwhile."""


@dataclass(frozen=True, slots=True)
class HandOver:
    """A request to step down that has to go out before this pool is gone, if it can.

    A node that is no primary refuses it, and so does one whose standbys are not ready; both are
    as well. `until_ms` None: the pool does not stop.
    """

    until_ms: Millis | None = None
    is_sent: bool = False

    def begin(self, now_ms: Millis) -> "HandOver":
        """Return what to do once the pool stops; saying so again changes nothing."""
        return self if self.until_ms is not None else HandOver(Millis(now_ms + HAND_OVER_MS))

    def left_ms(self, now_ms: Millis) -> int:
        """Return for how much longer to try; 0 when there is nothing to do."""
        return 0 if self.until_ms is None or self.is_sent else max(0, self.until_ms - now_ms)

    def sent(self) -> "HandOver":
        """Return what is left to do once the request is on its way: nothing."""
        return replace(self, is_sent=True)


def step_down() -> StepDown:
    """Return what the broker is asked for when the pool stops."""
    return StepDown(operator="pool stop", closing=True)


Suspects = Mapping[tuple[str, int, str], Millis]
"""Who was overdue (instance, pid, boot id), and since which look."""


def confirm(
    suspects: Suspects, overdue: Iterable[Overdue], now_ms: Millis
) -> tuple[dict[tuple[str, int, str], Millis], tuple[Overdue, ...]]:
    """Return the suspects after the broker's newest list, and those confirmed by two looks."""
    current: dict[tuple[str, int, str], Millis] = {}
    condemned = []
    for one in overdue:
        key = (one.instance, one.pid, one.boot_id)
        current[key] = suspects.get(key, now_ms)
        if now_ms - current[key] >= CONFIRM_MS:
            condemned.append(one)
    return current, tuple(condemned)


def victims(condemned: Iterable[Overdue], rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return the rows to kill: the same program, the same pid, and not being stopped."""
    wanted = {(one.instance, one.pid) for one in condemned}
    return tuple(
        row for row in rows if (row.program, row.pid) in wanted and row.pid and row.state in ALIVE
    )


@dataclass(frozen=True, slots=True)
class BrokerWatch:
    """Since when which broker process has been silent towards the watchdog."""

    pid: int = 0
    since_ms: Millis = BOOT
    looked_ms: Millis = BOOT
    answered: bool = False

    def look(self, pid: int, heard_ms: Millis | None, now_ms: Millis) -> "BrokerWatch":
        """Return the watch after one look.

        Args:
            pid: The broker's process as supervisord knows it, 0 when none may be judged.
            heard_ms: When a broker last answered.
            now_ms: Boot clock.
        """
        if pid != self.pid:
            return BrokerWatch(pid, now_ms, now_ms)
        if now_ms - self.looked_ms > STALL_MS:
            return replace(self, since_ms=now_ms, looked_ms=now_ms)
        if heard_ms is not None and heard_ms > self.since_ms:
            return BrokerWatch(pid, heard_ms, now_ms, answered=True)
        return replace(self, looked_ms=now_ms)

    def is_hung(self, now_ms: Millis, dead_after_ms: int) -> bool:
        """Return whether the broker has been silent for too long."""
        patience_ms = dead_after_ms if self.answered else max(dead_after_ms, NEWBORN_MS)
        return self.pid != 0 and now_ms - self.since_ms >= patience_ms
