"""What the watchdog decides, on plain values."""

from itertools import pairwise

import pytest

from broker.units import Millis
from broker.wire.standby import StepDown
from broker.wire.supervision import Overdue
from workers.watchdog.logic import (
    CONFIRM_MS,
    HAND_OVER_MS,
    NEWBORN_MS,
    REPAIR_MS_MAX,
    SETTLED_MS,
    STALL_MS,
    BrokerWatch,
    HandOver,
    Repair,
    Row,
    Tally,
    confirm,
    count_restarts,
    plan_repairs,
    step_down,
    victims,
)

DEAD_AFTER_MS = 15_000


def _row(program: str = "console", pid: int = 100, state: str = "RUNNING") -> Row:
    return Row(program=program, group=program, pid=pid, state=state, exit_status=0)


def _overdue(instance: str = "console", pid: int = 100, boot_id: str = "b1") -> Overdue:
    return Overdue(instance=instance, pid=pid, boot_id=boot_id, silent_ms=9000)


def _ms(value: int) -> Millis:
    return Millis(value)


# --- counting


def test_the_first_start_is_no_restart() -> None:
    """Zero means: as it came up."""
    assert count_restarts({}, [_row(pid=100)]) == {"console": Tally(100, 0)}


def test_every_new_pid_is_a_restart_and_a_gap_between_is_none() -> None:
    """The pid is 0 while supervisord waits to start it again."""
    tallies: dict[str, Tally] = {}
    for pid in (100, 100, 0, 101, 101, 0, 0, 102):
        tallies = count_restarts(tallies, [_row(pid=pid)])
    assert tallies == {"console": Tally(102, 2)}


def test_a_program_that_left_the_table_is_forgotten() -> None:
    """`supervisorctl remove` must not leave a ghost in the report."""
    tallies = count_restarts({"old": Tally(7, 3)}, [_row()])
    assert set(tallies) == {"console"}


# --- killing


def test_a_silence_is_confirmed_by_a_second_look_before_anybody_dies() -> None:
    """After a suspend everybody is overdue at once, and beats again a moment later."""
    suspects, condemned = confirm({}, [_overdue()], _ms(1000))
    assert condemned == ()
    suspects, condemned = confirm(suspects, [], _ms(1000 + CONFIRM_MS))
    suspects, condemned = confirm(suspects, [_overdue()], _ms(2000 + CONFIRM_MS))
    assert condemned == ()


def test_a_silence_that_lasts_is_confirmed() -> None:
    """The same lifetime, overdue in both looks."""
    suspects, _ = confirm({}, [_overdue()], _ms(1000))
    suspects, condemned = confirm(suspects, [_overdue()], _ms(1000 + CONFIRM_MS - 1))
    assert condemned == ()
    _, condemned = confirm(suspects, [_overdue()], _ms(1000 + CONFIRM_MS))
    assert condemned == (_overdue(),)


def test_another_lifetime_starts_with_a_clean_slate() -> None:
    """The predecessor's silence is not the successor's."""
    suspects, _ = confirm({}, [_overdue(boot_id="b1")], _ms(0))
    _, condemned = confirm(suspects, [_overdue(boot_id="b2")], _ms(5000))
    assert condemned == ()


def test_only_the_pid_that_supervisord_runs_as_that_program_is_killed() -> None:
    """A pid may belong to somebody else by now."""
    rows = [_row("console", 100), _row("gateway", 200)]
    assert victims([_overdue("console", 100)], rows) == (rows[0],)
    assert victims([_overdue("console", 101)], rows) == ()
    assert victims([_overdue("console", 200)], rows) == ()
    assert victims([_overdue("console", 0)], [_row("console", 0, "RUNNING")]) == ()


@pytest.mark.parametrize("state", ["STOPPING", "STOPPED", "EXITED", "BACKOFF", "FATAL", "UNKNOWN"])
def test_a_program_that_is_being_stopped_is_left_alone(state: str) -> None:
    """A running hook has its own time at an ordered stop."""
    assert victims([_overdue()], [_row(state=state)]) == ()


def test_a_program_that_is_still_starting_may_be_killed() -> None:
    """STARTING lasts a second; a hang in it is a hang."""
    assert victims([_overdue()], [_row(state="STARTING")])


# --- repairing


def _repaired_at(duration_ms: int) -> list[int]:
    """Return when a program that goes FATAL again at once is started."""
    repairs: dict[str, Repair] = {}
    moments = []
    for now in range(0, duration_ms, 100):
        repairs, starts = plan_repairs(repairs, [_row(pid=0, state="FATAL")], _ms(now))
        moments += [now for _ in starts]
    return moments


def test_a_fatal_program_is_started_again_ever_less_often() -> None:
    """One second at first, a minute at most: bad settings must not burn the processor (row 9)."""
    moments = _repaired_at(400_000)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert moments[0] == 1000
    assert gaps[:5] == [2000, 4000, 8000, 16_000, 32_000]
    assert set(gaps[5:]) == {REPAIR_MS_MAX}


def test_a_program_that_was_stopped_by_a_person_stays_stopped() -> None:
    """Only FATAL is repaired."""
    for state in ("STOPPED", "EXITED", "BACKOFF", "STOPPING"):
        assert plan_repairs({}, [_row(pid=0, state=state)], _ms(10_000)) == ({}, ())


def test_the_backoff_starts_over_only_after_a_minute_of_running() -> None:
    """A program that crashes after two seconds has not recovered."""
    before = {"console": Repair(5, _ms(40_000), _ms(8000))}
    soon, _ = plan_repairs(before, [_row()], _ms(8000 + SETTLED_MS - 1))
    assert soon == before
    settled, _ = plan_repairs(before, [_row()], _ms(8000 + SETTLED_MS))
    assert settled == {}


# --- the broker


def _watch(*looks: tuple[int, int | None], pid: int = 50) -> tuple[BrokerWatch, int]:
    """Return the watch after looks of (now, heard)."""
    watch, now = BrokerWatch(), 0
    for now, heard in looks:
        watch = watch.look(pid, None if heard is None else _ms(heard), _ms(now))
    return watch, now


def _every_second(until_ms: int, heard: int | None) -> list[tuple[int, int | None]]:
    return [(now, heard) for now in range(1000, until_ms + 1, 1000)]


def test_a_broker_that_answered_and_fell_silent_is_hung() -> None:
    """SIGSTOP looks like a connection that works; only beats prove life."""
    looks = [(1000, None), (2000, 1500), *[(now, 1500) for now in range(3000, 40_000, 1000)]]
    watch, _ = _watch(*looks)
    assert not watch.is_hung(_ms(1500 + DEAD_AFTER_MS - 1), DEAD_AFTER_MS)
    assert watch.is_hung(_ms(1500 + DEAD_AFTER_MS), DEAD_AFTER_MS)


def test_a_broker_that_checks_a_large_ledger_is_given_time() -> None:
    """It never answered yet: killing it would make it start over for ever."""
    watch, now = _watch(*_every_second(60_000, None))
    assert not watch.is_hung(_ms(now), DEAD_AFTER_MS)
    watch, now = _watch(*_every_second(NEWBORN_MS + 2000, None))
    assert watch.is_hung(_ms(now), DEAD_AFTER_MS)


def test_a_new_broker_process_is_not_blamed_for_its_predecessor() -> None:
    """Its time starts when it is first seen."""
    watch, _ = _watch(*_every_second(14_000, 500))
    watch = watch.look(51, _ms(500), _ms(15_000))
    assert not watch.is_hung(_ms(20_000), DEAD_AFTER_MS)


def test_the_watchdogs_own_absence_proves_nothing() -> None:
    """The machine slept for an hour: nobody was silent, nobody listened."""
    watch, _ = _watch((1000, None), (2000, 1500), (3000, 1500))
    woken = 3000 + 3_600_000
    assert woken - 3000 > STALL_MS
    watch = watch.look(50, _ms(1500), _ms(woken))
    assert not watch.is_hung(_ms(woken), DEAD_AFTER_MS)


def test_no_broker_process_means_nobody_to_kill() -> None:
    """Pid 0 stands for: not running, or being stopped."""
    watch, now = _watch(*_every_second(300_000, None), pid=0)
    assert not watch.is_hung(_ms(now), DEAD_AFTER_MS)


# --- handing over


def test_nothing_is_handed_over_while_the_pool_runs() -> None:
    """A watchdog that steps down by mistake would cost the mesh its primary."""
    assert HandOver().left_ms(_ms(5)) == 0


def test_the_hand_over_is_tried_for_a_moment_and_sent_once() -> None:
    """Supervisord may say twice that it stops, and the broker may just be restarting."""
    begun = HandOver().begin(_ms(100))

    assert begun.left_ms(_ms(100)) == HAND_OVER_MS
    assert begun.begin(_ms(600)) == begun
    assert begun.left_ms(_ms(100 + HAND_OVER_MS)) == 0
    assert begun.sent().left_ms(_ms(100)) == 0
    assert begun.sent().begin(_ms(700)).left_ms(_ms(700)) == 0


def test_a_stopping_pool_steps_down_only_if_somebody_is_ready() -> None:
    """Otherwise a restart of the only key holder would leave the mesh without a primary."""
    assert step_down() == StepDown(operator="pool stop", successor="", closing=True)
