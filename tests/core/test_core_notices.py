"""What people hear of, as tables: steps before the end, streaks, sums, times of retry."""

from dataclasses import replace
from typing import Any

import pytest

from broker.core.notices import DAY_S, Case, Changes, Trouble, compare, plain, steps_of, troubles_of
from broker.core.outbox import GIVE_UP_S, Parcel, wait_ms
from broker.core.telling import SINGLES_MAX, WINDOW_MS, Teller, Window, span
from broker.units import Millis, UnixSeconds
from broker.wire.notice import Notice, NoticeEvent

START = UnixSeconds(1_800_000_000)


def case_of(lifetime_s: int, **changes: Any) -> Case:
    """Return a host whose certificate of `lifetime_s` is due at two thirds."""
    case = Case(
        member_id="a1",
        host="nas",
        active=True,
        serial="01",
        renew_at=UnixSeconds(START + lifetime_s * 2 // 3),
        not_after=UnixSeconds(START + lifetime_s),
        last_error="",
        served="served",
        served_detail="",
        ends_at=UnixSeconds(START + lifetime_s),
    )
    return replace(case, **changes)


def seen(lifetime_s: int, left_s: int, **changes: Any) -> dict[NoticeEvent, Trouble]:
    """Return the troubles found with `left_s` to go."""
    case = case_of(lifetime_s, **changes)
    return troubles_of(case, UnixSeconds(START + lifetime_s - left_s))


@pytest.mark.parametrize(
    ("lifetime_s", "steps"),
    [
        (90 * DAY_S, [14 * DAY_S, 7 * DAY_S, DAY_S]),
        (30 * DAY_S, [7 * DAY_S, DAY_S]),
        (21 * DAY_S, [7 * DAY_S // 2, 7 * DAY_S // 4]),
        (3 * DAY_S, [DAY_S // 2, DAY_S // 4]),
        (300, [50, 25]),
        (3, []),
    ],
)
def test_steps_lie_behind_the_due_date(lifetime_s: int, steps: list[int]) -> None:
    """Whoever is told 30 days before the end of a 30-day certificate stops reading."""
    due = UnixSeconds(START + lifetime_s * 2 // 3)
    assert list(steps_of(due, UnixSeconds(START + lifetime_s))) == steps


@pytest.mark.parametrize(
    ("left_s", "event", "step"),
    [
        (11 * DAY_S, None, 0),
        (9 * DAY_S, None, 0),
        (7 * DAY_S + 1, None, 0),
        (7 * DAY_S, "member.expiring", 1),
        (2 * DAY_S, "member.expiring", 1),
        (DAY_S, "member.expiring", 2),
        (1, "member.expiring", 2),
        (0, "member.expired", 0),
        (-DAY_S, "member.expired", 0),
    ],
)
def test_a_late_renewal_is_told_by_steps_and_its_end_once(
    left_s: int, event: NoticeEvent | None, step: int
) -> None:
    """Seven days, one day, over."""
    found = seen(30 * DAY_S, left_s)
    assert [(one.event, one.step) for one in found.values()] == ([(event, step)] if event else [])


def test_what_is_served_counts_and_not_what_was_issued() -> None:
    """A certificate that lies with the CA keeps nobody's service alive."""
    ends = UnixSeconds(START + 30 * DAY_S + DAY_S)
    case = case_of(
        30 * DAY_S, renew_at=ends + 19 * DAY_S, not_after=ends + 29 * DAY_S, ends_at=ends
    )
    assert "member.expiring" in troubles_of(case, UnixSeconds(ends - DAY_S))
    assert "member.expired" in troubles_of(case, ends)


def test_a_revoked_member_and_one_without_a_certificate_have_no_trouble() -> None:
    """Nobody has to do anything about them."""
    assert seen(30 * DAY_S, -1, active=False, last_error="x") == {}
    assert seen(30 * DAY_S, -1, renew_at=None, not_after=None, ends_at=None) == {}


def test_states_of_service_have_names_of_their_own() -> None:
    """A hook that failed and a service that did not reload are mended in different places."""
    assert list(seen(DAY_S, DAY_S, served="failed")) == ["hook.failed"]
    assert list(seen(DAY_S, DAY_S, served="stale")) == ["served.mismatch"]
    assert list(seen(DAY_S, DAY_S, last_error="no route")) == ["renewal.failed"]


def test_a_streak_is_told_once_whatever_reasons_it_goes_through() -> None:
    """Refused now, timed out then: people know already."""
    first = seen(DAY_S, DAY_S, last_error="refused")
    second = seen(DAY_S, DAY_S, last_error="timed out")
    assert len(compare({}, first, active=True).news) == 1
    assert compare(first, second, active=True) == Changes()


def test_a_further_step_is_news_and_another_certificate_is_another_trouble() -> None:
    """Else the second month would stay silent because the first one was told."""
    early, late = seen(30 * DAY_S, 7 * DAY_S), seen(30 * DAY_S, DAY_S)
    assert [one.step for one in compare(early, late, active=True).news] == [2]
    assert compare(late, early, active=True).news == ()
    other = {event: replace(one, mark="77") for event, one in early.items()}
    assert len(compare(late, other, active=True).news) == 1


def test_recovery_is_when_nothing_is_left_and_not_for_the_revoked() -> None:
    """Half mended is not mended; thrown out is not well."""
    both = seen(DAY_S, DAY_S, last_error="x", served="failed")
    one = seen(DAY_S, DAY_S, served="failed")
    assert compare(both, one, active=True).recovered == ()
    assert set(compare(both, {}, active=True).recovered) == {"renewal.failed", "hook.failed"}
    assert compare(both, {}, active=False).recovered == ()
    told = {event: replace(trouble, told=True) for event, trouble in both.items()}
    assert compare(told, {}, active=True).people_knew
    assert not compare(both, {}, active=True).people_knew


def test_few_are_told_one_by_one_and_many_in_one_notice() -> None:
    """A dead switch is one message."""
    window = Window()
    window, singles, sums = window.next(3, Millis(5))
    assert (singles, sums) == (3, False)
    window, singles, sums = window.next(412, Millis(6))
    assert (singles, sums) == (0, True)
    window, singles, sums = window.next(9, Millis(7))
    assert (singles, sums) == (0, False), "one summary a window"
    window, singles, sums = window.next(9, Millis(5 + WINDOW_MS))
    assert (singles, sums) == (0, True)


def test_a_trickle_is_bounded_too() -> None:
    """One failure a second is a storm as well, only a slower one."""
    window, told = Window(), 0
    waiting = 0
    for second in range(WINDOW_MS // 1000):
        waiting += 1
        window, singles, sums = window.next(waiting, Millis(second * 1000))
        told += singles + sums
        waiting = 0 if singles or sums else waiting
    assert told == SINGLES_MAX + 1


def test_a_summary_counts_all_and_names_some() -> None:
    """With the first reason: it is usually the reason of all."""
    troubles = [
        Trouble("renewal.failed", f"{n}", f"h{n}", START, detail="no route") for n in range(64)
    ]
    told = Teller("home", "atlas", START).many("00", "renewal.failed", 412, troubles)
    assert told.summary == "renewing 412 hosts fails"
    assert "h0, h1" in told.detail
    assert "and 392 more; such as: no route" in told.detail
    assert told.key == "renewal.failed:*"


def test_the_last_day_is_an_error() -> None:
    """Seven days is a task, one day is an alarm."""
    teller = Teller("home", "atlas", START)
    soon = Trouble("member.expiring", "a1", "nas", START, 2, str(START + DAY_S))
    later = replace(soon, mark=str(START + 7 * DAY_S))
    assert teller.one("00", soon).severity == "error"
    assert teller.one("00", later).severity == "warning"
    assert "ends in 7 days" in teller.one("00", later).summary


@pytest.mark.parametrize(
    ("left_s", "text"),
    [
        (7 * DAY_S, "7 days"),
        (DAY_S, "24 hours"),
        (5400, "90 minutes"),
        (50, "50 seconds"),
        (1, "1 second"),
    ],
)
def test_spans_use_the_unit_that_says_enough(left_s: int, text: str) -> None:
    """No days left frightens, 86400 seconds tell nothing."""
    assert span(left_s) == text


def test_text_of_a_host_is_one_printable_line() -> None:
    """It ends in mails, chats and terminals."""
    assert plain("a\r\nBcc: x\x1b[2J\u202eb  c", 100) == "a Bcc: x [2J b c"
    assert len(plain("x" * 10_000, 50)) == 50


def test_a_target_that_took_it_is_not_asked_again() -> None:
    """At least once for each, and no more where it worked."""
    notice = Notice("00", "hook.failed", "warning", START, "home", "atlas", "nas", "x")
    parcel = Parcel(1, notice, "waiting", 0, {"webhook": (0, ""), "ntfy": (0, "")})
    parcel = parcel.after({"webhook"}, ("webhook",), "")
    assert (parcel.state, dict(parcel.tries)) == ("waiting", {"ntfy": (0, "")})
    parcel = parcel.after((), ("ntfy",), "status 500")
    assert (parcel.line.waiting, parcel.line.errors) == (("ntfy",), ("status 500",))
    assert parcel.after({"ntfy"}, ("ntfy",), "").state == "sent"


def test_retries_slow_down_to_an_hour() -> None:
    """30 s, a minute, two... and never more than an hour."""
    assert [wait_ms(n) for n in (1, 2, 3)] == [30_000, 60_000, 120_000]
    assert wait_ms(50) == 3_600_000


def test_only_what_was_tried_can_be_given_up() -> None:
    """A laptop that slept for two days has not tried for two days."""
    notice = Notice("00", "hook.failed", "warning", START, "home", "atlas", "nas", "x")
    day_later = UnixSeconds(START + GIVE_UP_S)
    fresh = Parcel(1, notice, "waiting", 0, {"ntfy": (0, "")})
    assert not fresh.is_hopeless(day_later)
    tried = fresh.after((), ("ntfy",), "status 500")
    assert tried.is_hopeless(day_later)
    assert not tried.is_hopeless(UnixSeconds(day_later - 1))
