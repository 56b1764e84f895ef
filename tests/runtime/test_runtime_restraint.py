"""Who ends again and again waits before it tries once more; how it ended is read from a log."""

import subprocess
import sys
from pathlib import Path

import pytest

from broker.clock import boottime_ms
from broker.runtime.endings import TAIL_BYTES, Ending, endings
from broker.runtime.restraint import (
    FREE_ENDS,
    SETTLED_MS,
    WAIT_MS_MAX,
    Start,
    Starts,
    digests,
    next_start,
)
from broker.runtime.settings import Log, Settings
from broker.units import Millis
from tests.support import eventually

CRASH = Ending("exit status 1", was_asked=False)
NOW_MS = Millis(1_000_000)


def line(words: str) -> str:
    """Return a line of supervisord's log."""
    return f"2026-11-24 01:40:21,123 INFO {words}\n"


def storm(ends: int, life_ms: int = 1500) -> list[int]:
    """Return how long each of so many starts waits, when each life ends after `life_ms`."""
    start, now_ms, waits = Start(NOW_MS), NOW_MS, []
    for _ in range(ends):
        now_ms = Millis(start.due_ms + life_ms)
        start = next_start(start, CRASH, now_ms)
        waits.append(start.wait_ms(now_ms))
    return waits


def test_a_few_quick_ends_are_free_then_the_wait_doubles_up_to_a_minute() -> None:
    """Under startsecs supervisord gives up first; after it nobody else would wait (row 9)."""
    waits = storm(14)
    assert waits[:FREE_ENDS] == [0] * FREE_ENDS
    assert waits[FREE_ENDS : FREE_ENDS + 4] == [1000, 2000, 4000, 8000]
    assert waits[-1] == WAIT_MS_MAX
    # Starts in the worst minute, the first one: bounded, and far fewer in each later one.
    assert sum(1500 * (n + 1) + sum(waits[: n + 1]) < 60_000 for n in range(14)) <= 12


def test_who_worked_for_a_minute_begins_anew() -> None:
    """A crash a day is no storm."""
    before = Start(NOW_MS, ends=40)
    assert next_start(before, CRASH, Millis(NOW_MS + SETTLED_MS)).ends == 0


@pytest.mark.parametrize(
    "ending", [None, Ending("terminated by SIGKILL", was_asked=False)], ids=["unseen", "killed"]
)
def test_who_was_killed_is_not_held_back_for_it(ending: Ending | None) -> None:
    """Kill -9 of a broker is an event of a second, also the tenth time in a minute (rows 1, 10)."""
    before = Start(NOW_MS, ends=FREE_ENDS)
    after = next_start(before, ending, Millis(NOW_MS + 100))
    assert (after.ends, after.wait_ms(Millis(NOW_MS + 100))) == (FREE_ENDS, 0)


def test_a_stop_that_was_asked_for_forgives() -> None:
    """`certmesh down` and `up` by a person, who will see what happens."""
    before = Start(NOW_MS, ends=40)
    asked = Ending("terminated by SIGTERM", was_asked=True)
    assert next_start(before, asked, Millis(NOW_MS + 100)).ends == 0


def test_who_was_killed_while_it_waited_goes_on_waiting_for_the_rest() -> None:
    """It never began its work: nothing to count, and nothing to begin anew."""
    before = Start(Millis(NOW_MS + 30_000), ends=9, words="exit status 1")
    killed = Ending("terminated by SIGKILL", was_asked=False)
    assert next_start(before, killed, NOW_MS) == before


def test_a_note_of_another_boot_of_the_machine_holds_nobody_back() -> None:
    """The boot clock began anew, so the note may lie far ahead."""
    assert next_start(Start(Millis(NOW_MS + 10**9), ends=50), CRASH, NOW_MS).ends == 0


def test_the_newest_end_of_each_process_is_found(home: Path) -> None:
    """In supervisord's own words, with whether it had asked for it."""
    log = home / "supervisord.log"
    log.write_text(
        line("spawned: 'console' with pid 7")
        + line("exited: console (terminated by SIGABRT (core dumped); not expected)")
        + line("spawned: 'console' with pid 8")
        + line("exited: gateway (exit status 0; expected)")
        + line("stopped: renewal-0 (terminated by SIGKILL)")
        + line("gave up: gateway entered FATAL state, too many start retries too quickly")
    )
    assert endings(log) == {
        "console": Ending("terminated by SIGABRT (core dumped)", was_asked=False),
        "gateway": Ending("exit status 0", was_asked=False),
        "renewal-0": Ending("terminated by SIGKILL", was_asked=True),
    }


def test_an_end_that_nobody_saw_is_not_blamed_on_an_earlier_one(home: Path) -> None:
    """Supervisord died with its children: its last word on this one is about somebody else."""
    log = home / "supervisord.log"
    log.write_text(
        line("exited: console (exit status 1; not expected)")
        + line("spawned: 'console' with pid 7")
        + line("spawned: 'console' with pid 8")
    )
    assert endings(log) == {}


def test_only_the_end_of_a_long_log_is_read_and_garbage_is_no_line(home: Path) -> None:
    """A storm must not make every start slower."""
    log = home / "supervisord.log"
    old = line("exited: gateway (exit status 1; not expected)")
    log.write_bytes(
        old.encode() + b"\xff\n" * TAIL_BYTES + line("exited: a (b; expected)").encode()
    )
    assert endings(log) == {"a": Ending("b", was_asked=False)}
    assert endings(home / "nothing.log") == {}


def test_a_damaged_note_is_no_note(home: Path) -> None:
    """Patience is no reason to crash."""
    starts = Starts(home)
    (home / "run" / "starts").mkdir(parents=True)
    (home / "run" / "starts" / "console.json").write_bytes(b'{"due_ms": "soon')
    assert starts.of("console") is None
    starts.keep("console", Start(1, ends=3))
    assert starts.of("console") == Start(1, ends=3)
    starts.forgive("console")
    forgiven = starts.of("console")
    assert forgiven is not None
    assert forgiven.ends == 0
    starts.forget_all()
    assert starts.of("console") is None


def test_only_the_section_that_changed_has_another_digest() -> None:
    """By that `certmesh reload` knows whom to start again."""
    before, after = digests(Settings()), digests(Settings(log=Log(level="debug")))
    assert {name for name in before if before[name] != after[name]} == {"log"}


def test_a_real_process_waits_before_it_reads_its_settings_and_ends_at_once_when_told(
    home: Path,
) -> None:
    """It waits as a process that does nothing: SIGTERM needs no help from it."""
    (home / "run").mkdir(exist_ok=True)
    (home / "log").mkdir(exist_ok=True)
    (home / "log" / "supervisord.log").write_text(
        line("exited: console (exit status 1; not expected)")
        + line("spawned: 'console' with pid 8")
    )
    Starts(home).keep("console", Start(boottime_ms() - 1500, ends=FREE_ENDS + 5))
    code = "import sys\nfrom broker.runtime.main import run_process\nsys.exit(run_process(print))"
    environment = {
        "SUPERVISOR_PROCESS_NAME": "console",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home / "certmesh.toml")],
        env=environment,
        stderr=subprocess.PIPE,
    ) as process:
        held = eventually(
            lambda: (start := Starts(home).of("console")) and start.ends > FREE_ENDS + 5 and start,
            within_s=20,
        )
        assert isinstance(held, Start)
        assert held.wait_ms(boottime_ms()) > 20_000
        assert process.poll() is None
        process.terminate()
        assert process.wait(20) == -15
        assert process.stderr is not None
        assert process.stderr.read() == b""  # it never came to look for its settings
