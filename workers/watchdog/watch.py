"""The watchdog's loop: look at the table, report, judge, kill, repair."""

import contextlib
import os
import signal
from dataclasses import dataclass, field

import zmq

from broker.client import Link
from broker.clock import boottime_ms, wall_s
from broker.errors import MeshError, UnavailableError
from broker.runtime.endings import endings
from broker.runtime.events import EventName
from broker.runtime.exits import Exit
from broker.runtime.logs import log
from broker.runtime.paths import Paths
from broker.runtime.restraint import SETTLED_MS, WAIT_MS_MAX, Starts
from broker.runtime.stop import StopSignal
from broker.units import Millis
from broker.wire.liveness import Beat
from broker.wire.messages import Answer
from broker.wire.supervision import Overdue, OverdueView, ProcessLine, ReportProcesses
from workers.process import OUTDATED
from workers.watchdog import logic
from workers.watchdog.listener import Listener
from workers.watchdog.logic import BrokerWatch, HandOver, Repair, Row, Tally
from workers.watchdog.memory import Memory
from workers.watchdog.report import Found, Past, has_ended, note_ends
from workers.watchdog.table import StoppingError, Table
from workers.watchdog.ticker import Ticker

LOOK_MS = 1000
"""The table is read this often, and at once after every event."""

YOUNG_MS = SETTLED_MS + WAIT_MS_MAX
"""Who runs for longer is not waiting before its work any more."""

TURN_MS = 250
PROMISED_MS = 10_000


@dataclass(slots=True)
class State:
    """What the watchdog remembers between two turns."""

    tallies: dict[str, Tally]
    pasts: dict[str, Past] = field(default_factory=dict)
    killed: dict[int, str] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    reported: tuple[ProcessLine, ...] = ()
    repairs: dict[str, Repair] = field(default_factory=dict)
    suspects: logic.Suspects = field(default_factory=dict)
    broker: BrokerWatch = field(default_factory=BrokerWatch)
    look_due_ms: Millis = logic.BOOT
    beat_due_ms: Millis = logic.BOOT
    hand_over: HandOver = field(default_factory=HandOver)
    progress: int = 0
    stopping: bool = False
    table_error: str = ""


class Watch:
    """Judges with `logic`, acts on the table, the broker's link and process ids."""

    def __init__(self, link: Link, table: Table, places: Paths, dead_after_ms: int) -> None:
        self._link = link
        self._table = table
        self._places = places
        self._memory = Memory(places.run)
        self._dead_after_ms = dead_after_ms
        self.state = State(*self._memory.load())

    def descriptors(self) -> tuple["zmq.Socket[bytes]", ...]:
        """Return the sockets whose answers a turn takes in."""
        return self._link.descriptors()

    def is_outdated(self) -> bool:
        """Whether the broker refuses what this process speaks; another release of it may do."""
        return self._link.is_outdated()

    def turn(self, now_ms: Millis, *, hinted: bool) -> None:
        """Do what is due; `hinted` when supervisord just said that something changed."""
        state = self.state
        self._hand_over(now_ms)
        if hinted or now_ms >= state.look_due_ms:
            self._look(now_ms)
            state.look_due_ms = Millis(now_ms + LOOK_MS)
        for answer in self._link.collect():
            self._judge(answer, now_ms)
        if self._link.keep_registered() and now_ms >= state.beat_due_ms:
            self._beat(now_ms)
        if not state.stopping:
            self._watch_broker(now_ms)

    def pool_stops(self, now_ms: Millis) -> None:
        """Note that supervisord stops everything: another node should take over at once."""
        if self.state.hand_over.until_ms is None:
            log(EventName.SUPERVISOR_STATE_CHANGED, program="supervisord", state="STOPPING")
        self.state.hand_over = self.state.hand_over.begin(now_ms)
        self._hand_over(now_ms)

    def _hand_over(self, now_ms: Millis) -> None:
        """Ask the broker once to step down, without waiting for what it says."""
        hand_over = self.state.hand_over
        left_ms = hand_over.left_ms(now_ms)
        if left_ms and self._link.post(logic.step_down(), timeout_ms=left_ms) is not None:
            self.state.hand_over = hand_over.sent()

    def _look(self, now_ms: Millis) -> None:
        """Read the table, report it to the broker, start what is FATAL."""
        if not self._read_table():
            return
        state = self.state
        self._note_ends()
        tallies = logic.count_restarts(state.tallies, state.rows, now_ms)
        _log_restarts(state.tallies, tallies, state.pasts)
        state.tallies = tallies
        self._memory.save(tallies, state.pasts)
        state.repairs, starts = logic.plan_repairs(state.repairs, state.rows, now_ms)
        state.reported = self._found(now_ms).lines(now_ms)
        self._link.post(ReportProcesses(processes=state.reported), timeout_ms=LOOK_MS)
        for row in starts:
            self._repair(row)

    def _note_ends(self) -> None:
        """Learn how those ended who are gone; the log is read for them only."""
        state = self.state
        ended = [
            (row.program, tally.pid if tally else 0)
            for row in state.rows
            for tally in (state.tallies.get(row.program),)
            if has_ended(row, tally, state.pasts.get(row.program))
        ]
        if ended:
            said = (endings(self._places.log / "supervisord.log"), state.killed)
            state.pasts = note_ends(state.pasts, ended, said, wall_s())
            for _, pid in ended:
                state.killed.pop(pid, None)

    def _found(self, now_ms: Millis) -> Found:
        state, starts = self.state, Starts(self._places.home)
        young = (
            row.program
            for row in state.rows
            if now_ms - state.tallies[row.program].since_ms < YOUNG_MS
        )
        said = {name: start for name in young if (start := starts.of(name)) is not None}
        return Found(state.rows, state.tallies, state.pasts, state.repairs, said)

    def _read_table(self) -> bool:
        state = self.state
        try:
            state.rows = self._table.rows()
        except StoppingError:
            state.stopping = True
            return False
        except UnavailableError as error:
            if error.detail != state.table_error:
                log(EventName.ROUND_FAILED, detail=error.detail)
            state.table_error = error.detail
            return False
        state.stopping, state.table_error = False, ""
        return True

    def _repair(self, row: Row) -> None:
        attempts = self.state.repairs[row.program].attempts
        log(EventName.SUPERVISOR_STATE_CHANGED, program=row.program, state="FATAL", start=attempts)
        try:
            self._table.start(row)
        except MeshError as error:
            log(EventName.ROUND_FAILED, program=row.program, detail=error.detail)

    def _judge(self, answer: Answer, now_ms: Millis) -> None:
        if not isinstance(answer.reply, OverdueView):
            return
        state = self.state
        overdue = answer.reply.overdue
        state.suspects, condemned = logic.confirm(state.suspects, overdue, now_ms)
        if condemned and self._read_table():
            for row in logic.victims(condemned, state.rows):
                self._kill(row, _silence_of(row, condemned))

    def _watch_broker(self, now_ms: Millis) -> None:
        state = self.state
        running = [row for row in state.rows if row.program == "broker"]
        pid = running[0].pid if running and running[0].state in logic.ALIVE else 0
        state.broker = state.broker.look(pid, self._link.heard_ms, now_ms)
        if not state.broker.is_hung(now_ms, self._dead_after_ms) or not self._read_table():
            return
        for row in state.rows:
            if row.program == "broker" and row.pid == pid and row.state in logic.ALIVE:
                self._kill(row, now_ms - state.broker.since_ms)
        state.broker = BrokerWatch()

    def _kill(self, row: Row, silent_ms: int) -> None:
        """Kill the whole process group: a hung hook must not survive its worker."""
        log(EventName.WORKER_KILLED, program=row.program, victim=row.pid, silent_ms=silent_ms)
        self.state.killed[row.pid] = f"killed: silent for {silent_ms / 1000:.1f} s"
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(row.pid) == row.pid:
                os.killpg(row.pid, signal.SIGKILL)
            else:
                os.kill(row.pid, signal.SIGKILL)

    def _beat(self, now_ms: Millis) -> None:
        state = self.state
        state.progress += 1
        beat = Beat(
            progress=state.progress,
            within_ms=PROMISED_MS,
            last_success_at=wall_s(),
            last_error=state.table_error[:1024],
            next_run_ms=max(0, state.look_due_ms - now_ms),
        )
        if self._link.beat(beat):
            state.beat_due_ms = Millis(now_ms + min(self._link.beat_every_ms, LOOK_MS))


def run(watch: Watch, link: Link) -> int:
    """Be supervisord's event listener until the stop signal; return the exit status.

    Standard output is the protocol channel and nothing else may ever reach it; standard error is
    where the ticker ticks.
    """
    channel = os.dup(1)
    os.dup2(2, 1)
    ticker = Ticker(2)
    ticker.start()
    with StopSignal() as stop:
        _turn_until(stop, watch, Listener(0, channel), ticker)
        asked = stop.requested()
    log(EventName.PROCESS_STOPPING, reason="asked to stop" if asked else OUTDATED)
    link.goodbye("stopping")
    return Exit.OK if asked else Exit.TEMPORARY


def _turn_until(stop: StopSignal, watch: Watch, listener: Listener, ticker: Ticker) -> None:
    poller = zmq.Poller()
    for item in (*watch.descriptors(), listener.source, stop.fileno()):
        poller.register(item, zmq.POLLIN)
    listener.begin()
    log(EventName.PROCESS_READY)
    while not stop.requested() and not watch.is_outdated():
        ready = dict(poller.poll(TURN_MS))
        notices = listener.take() if listener.source in ready else ()
        if any(notice.name == logic.POOL_STOPS for notice in notices):
            watch.pool_stops(boottime_ms())
        watch.turn(boottime_ms(), hinted=bool(notices))
        ticker.turned()


def _silence_of(row: Row, condemned: tuple[Overdue, ...]) -> int:
    return next(one.silent_ms for one in condemned if one.pid == row.pid)


def _log_restarts(
    before: dict[str, Tally], after: dict[str, Tally], pasts: dict[str, Past]
) -> None:
    for program, tally in after.items():
        if tally.restarts > before.get(program, Tally()).restarts:
            past = pasts.get(program)
            log(
                EventName.WORKER_RESTARTED,
                program=program,
                restarts=tally.restarts,
                started=tally.pid,
                ended=past.words if past is not None else "",
            )
