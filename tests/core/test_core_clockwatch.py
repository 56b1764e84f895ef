"""When a wall clock is believed, warned about, and not signed with."""

import pytest

from broker.core.clockwatch import (
    REFUSE_S,
    SILENCE,
    WARN_S,
    ClockWatch,
    Doubt,
    Opinion,
    opinion_of,
)
from broker.units import Millis, UnixSeconds

WALL = 1_700_000_000
DAY_S = 86_400
BOOT_MS = 3_600_000


def _watch() -> ClockWatch:
    watch = ClockWatch()
    watch.look(UnixSeconds(WALL), Millis(BOOT_MS), SILENCE)
    return watch


def _doubt(watch: ClockWatch, jump_s: int, heard: Opinion = SILENCE) -> Doubt | None:
    """Return the doubt ten seconds later, with the clock set by `jump_s` meanwhile."""
    return watch.doubt(UnixSeconds(WALL + 10 + jump_s), Millis(BOOT_MS + 10_000), heard)


@pytest.mark.parametrize("jump_s", [0, WARN_S, -WARN_S])
def test_a_clock_that_is_put_right_a_little_is_believed(jump_s: int) -> None:
    """Every clock is corrected now and then (P13)."""
    assert _doubt(_watch(), jump_s) is None


@pytest.mark.parametrize("jump_s", [3600, -7200, DAY_S])
def test_a_jump_of_minutes_is_told_and_no_more(jump_s: int) -> None:
    """It harms no certificate (row 19, row 20, P13)."""
    doubt = _doubt(_watch(), jump_s)
    assert doubt is not None
    assert (doubt.off_s, doubt.is_absurd) == (-jump_s, False)


@pytest.mark.parametrize("jump_s", [400 * DAY_S, -365 * DAY_S, DAY_S + 1])
def test_a_jump_of_more_than_a_day_is_absurd(jump_s: int) -> None:
    """Also when no member can be heard any more, because its certificate seems over (P13)."""
    doubt = _doubt(_watch(), jump_s)
    assert doubt is not None
    assert doubt.is_absurd
    assert doubt.why.startswith("it jumped forward" if jump_s > 0 else "it jumped back")


@pytest.mark.parametrize("members", [1, 2, 9])
def test_members_that_agree_clear_a_clock_that_jumped(members: int) -> None:
    """A virtual machine that was paused for a week is right after its jump (P13)."""
    watch, heard = _watch(), Opinion(2, members)
    assert _doubt(watch, 7 * DAY_S, heard) is None
    watch.look(UnixSeconds(WALL + 10 + 7 * DAY_S), Millis(BOOT_MS + 10_000), heard)
    assert (
        watch.doubt(UnixSeconds(WALL + 20 + 7 * DAY_S), Millis(BOOT_MS + 20_000), SILENCE) is None
    )


def test_looking_does_not_make_a_jump_believed() -> None:
    """Only people and peers do (P13)."""
    watch = _watch()
    for second in range(10, 100, 10):
        watch.look(
            UnixSeconds(WALL + second + 400 * DAY_S), Millis(BOOT_MS + second * 1000), SILENCE
        )
    doubt = watch.doubt(UnixSeconds(WALL + 100 + 400 * DAY_S), Millis(BOOT_MS + 100_000), SILENCE)
    assert doubt is not None
    assert doubt.is_absurd


def test_many_small_steps_add_up_to_a_jump() -> None:
    """Whoever can move the clock a little can do it often (P13)."""
    watch = _watch()
    wall = WALL
    for second in range(1, 400):
        wall += 1 + WARN_S
        watch.look(UnixSeconds(wall), Millis(BOOT_MS + second * 1000), SILENCE)
    doubt = watch.doubt(UnixSeconds(wall), Millis(BOOT_MS + 399_000), SILENCE)
    assert doubt is not None
    assert doubt.is_absurd


def test_a_clock_that_drifts_like_any_clock_is_believed_for_ever() -> None:
    """A quartz is off by a minute a month; that is no jump, however long the broker runs."""
    watch = _watch()
    for second in range(0, 4_000_000, 20_000):
        now = UnixSeconds(WALL + second + second // 20_000)
        assert watch.doubt(now, Millis(BOOT_MS + second * 1000), SILENCE) is None
        watch.look(now, Millis(BOOT_MS + second * 1000), SILENCE)


def test_a_machine_that_has_just_started_may_learn_the_time() -> None:
    """Without a battery it wakes up where it stopped, weeks ago; then the network tells (P13)."""
    watch = ClockWatch()
    watch.look(UnixSeconds(WALL), Millis(5_000), SILENCE)
    watch.look(UnixSeconds(WALL + 30 * DAY_S), Millis(60_000), SILENCE)
    assert watch.doubt(UnixSeconds(WALL + 30 * DAY_S), Millis(60_000), SILENCE) is None


@pytest.mark.parametrize("off_s", [WARN_S + 1, -WARN_S - 1, REFUSE_S])
def test_members_that_differ_by_minutes_are_a_warning(off_s: int) -> None:
    """More than five minutes (P13)."""
    doubt = _doubt(_watch(), 0, Opinion(off_s, 5))
    assert doubt is not None
    assert (doubt.off_s, doubt.is_absurd) == (off_s, False)


@pytest.mark.parametrize("members", [2, 3, 64])
def test_members_that_differ_by_more_than_a_day_stop_the_signing(members: int) -> None:
    """Also when this clock has not moved: it was wrong from the start (P13)."""
    doubt = _doubt(_watch(), 0, Opinion(-REFUSE_S - 1, members))
    assert doubt is not None
    assert doubt.is_absurd
    assert f"{members} members" in doubt.why


def test_one_member_alone_cannot_stop_a_ca() -> None:
    """Any member could then stop it for all the others (P13)."""
    doubt = _doubt(_watch(), 0, opinion_of([400 * DAY_S]))
    assert doubt is not None
    assert not doubt.is_absurd


@pytest.mark.parametrize(
    ("skews", "off_s"),
    [([], 0), ([50], 50), ([0, 9], 0), ([9, 9], 9), ([-9, 9], 0), ([1, 2, 900], 2), ([-9, -9], -9)],
)
def test_an_opinion_is_what_most_say(skews: list[int], off_s: int) -> None:
    """One of two or more that lies moves nothing (P13)."""
    assert opinion_of(skews) == Opinion(off_s, len(skews))
