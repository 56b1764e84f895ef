"""What the watchdog tells of each process: how the one before ended, and who is held back."""

from pathlib import Path

import pytest

from broker.runtime.endings import Ending
from broker.runtime.restraint import SETTLED_MS, Start
from broker.units import Millis, UnixSeconds
from workers.watchdog.logic import Repair, Row, Tally
from workers.watchdog.memory import Memory
from workers.watchdog.report import UNKNOWN, Found, Past, has_ended, note_ends

NOW = UnixSeconds(1_700_000_000)
NOW_MS = Millis(500_000)
KILLED = "killed: silent for 7.2 s"


def row(pid: int = 100, state: str = "RUNNING") -> Row:
    """Return the console in supervisord's table."""
    return Row(program="console", group="console", pid=pid, state=state, exit_status=0)


def test_the_report_carries_what_supervisord_says_and_what_was_counted() -> None:
    """One line per process, with how long it runs."""
    found = Found((row(),), {"console": Tally(100, 4, Millis(NOW_MS - 9000))}, {})
    (line,) = found.lines(NOW_MS)
    assert (line.program, line.pid, line.state, line.restarts) == ("console", 100, "RUNNING", 4)
    assert (line.uptime_ms, line.last_exit, line.next_start_ms) == (9000, "", None)


@pytest.mark.parametrize(
    ("seen", "tally", "past", "ended"),
    [
        (row(), Tally(100), None, False),
        (row(pid=101), Tally(100), None, True),
        (row(pid=0, state="BACKOFF"), Tally(100), None, True),
        (row(pid=101), Tally(100), Past(100, "exit status 1", NOW), False),
        (row(pid=0, state="FATAL"), None, None, True),
        (row(), None, None, False),
    ],
)
def test_an_end_is_noted_once(seen: Row, tally: Tally, past: Past | None, *, ended: bool) -> None:
    """At the first look that misses it, and not again at every later one."""
    assert has_ended(seen, tally, past) is ended


def test_who_killed_it_matters_more_than_what_supervisord_saw() -> None:
    """For supervisord every hung process that was replaced is just a SIGKILL (rows 4, 5)."""
    words = {"console": Ending("terminated by SIGKILL", was_asked=False)}
    noted = note_ends({}, [("console", 100)], (words, {100: KILLED}), NOW)
    assert noted["console"] == Past(100, KILLED, NOW)
    noted = note_ends(noted, [("console", 101)], (words, {}), NOW)
    assert noted["console"].words == "terminated by SIGKILL"
    assert note_ends({}, [("console", 7)], ({}, {}), NOW)["console"].words == UNKNOWN


def test_a_process_that_waits_before_its_work_is_reported_as_backoff() -> None:
    """Supervisord calls it RUNNING; a storm must end in a state that people see (row 9)."""
    start = Start(due_ms=NOW_MS + 4000, ends=7, words="exit status 1")
    past = {"console": Past(99, "exit status 1", NOW)}
    found = Found((row(),), {"console": Tally(100, 7)}, past, starts={"console": start})
    (line,) = found.lines(NOW_MS)
    assert (line.state, line.next_start_ms, line.ends) == ("BACKOFF", 4000, 7)
    assert (line.last_exit, line.last_exit_at) == ("exit status 1, 7 times in a row", NOW)
    (later,) = found.lines(Millis(NOW_MS + 4000))
    assert (later.state, later.next_start_ms, later.ends) == ("RUNNING", None, 7)
    (settled,) = found.lines(Millis(NOW_MS + 4000 + SETTLED_MS))
    assert settled.ends == 0


def test_a_fatal_program_is_reported_with_its_next_start() -> None:
    """It is the watchdog that starts it again, so only the watchdog knows when."""
    repairs = {"console": Repair(2, Millis(NOW_MS + 8000))}
    found = Found((row(pid=0, state="FATAL"),), {"console": Tally()}, {}, repairs)
    (line,) = found.lines(NOW_MS)
    assert (line.state, line.next_start_ms) == ("FATAL", 8000)


def test_what_was_counted_and_why_survives_the_watchdog_but_not_its_supervisord(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killing the one who counts must not hide the crashes so far."""
    (home / "run").mkdir(exist_ok=True)
    tallies = {"console": Tally(100, 4, NOW_MS), "gateway": Tally(101)}
    pasts = {"console": Past(99, KILLED, NOW)}
    Memory(home / "run").save(tallies, pasts)
    assert Memory(home / "run").load() == (tallies, pasts)
    monkeypatch.setattr("os.getppid", lambda: 1)
    assert Memory(home / "run").load() == ({}, {})


def test_a_place_that_takes_no_file_does_not_end_the_watchdog(home: Path) -> None:
    """A full disk loses numbers on a screen; nobody would kill hung processes any more (P12)."""
    memory = Memory(home / "nowhere" / "run")
    memory.save({"console": Tally(100, 4)}, {})
    assert memory.load() == ({}, {})
