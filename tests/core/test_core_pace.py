"""The pace of attempts: one in a while, no way in starves the other, bounded memory."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from broker.core.pace import (
    KEYS_MAX,
    SAVED_MAX,
    Pace,
    attempts_advice,
    attempts_left,
    pace_ms,
    since_issue_ms,
)
from broker.core.renewal import BACKDATE_S, Backoff
from broker.units import Millis, UnixSeconds
from broker.wire.policy import Policy

MINUTE_MS = 60_000


def test_the_pace_is_a_minute_for_five_minutes_and_less_for_less() -> None:
    """A pace as long as the life would let every certificate end."""
    assert pace_ms(MINUTE_MS, 30 * 86_400) == MINUTE_MS
    assert pace_ms(MINUTE_MS, 300) == MINUTE_MS
    assert pace_ms(MINUTE_MS, 60) == 12_000
    assert pace_ms(0, 300) == 0


def test_the_next_attempt_waits_for_the_pace() -> None:
    """The rule itself."""
    pace = Pace()
    assert pace.turn_ms("m1", MINUTE_MS) is None
    pace.begin("m1", Millis(1000), MINUTE_MS)
    assert pace.turn_ms("m1", MINUTE_MS) == 61_000
    assert pace.turn_ms("m2", MINUTE_MS) is None


def test_an_attempt_that_came_to_nothing_leaves_the_one_before() -> None:
    """A lost commit takes back its own attempt, and no other."""
    pace = Pace()
    pace.begin("m1", Millis(1000), MINUTE_MS)
    before = pace.begin("m1", Millis(50_000), MINUTE_MS)
    pace.put_back("m1", before)
    assert pace.turn_ms("m1", MINUTE_MS) == 61_000
    pace.put_back("m1", None)
    assert pace.turn_ms("m1", MINUTE_MS) is None


@pytest.mark.parametrize(
    ("gone_s", "wait_s"), [(0, 60), (1, 60), (30, 31), (60, 1), (61, 0), (600, 0), (-3600, 0)]
)
def test_a_certificate_tells_when_the_last_attempt_was(gone_s: int, wait_s: int) -> None:
    """What a restarted broker goes by; whole seconds are rounded so that it never is too early."""
    issued_at = 1_000_000
    not_before = UnixSeconds(issued_at - BACKDATE_S)
    waits = since_issue_ms(not_before, UnixSeconds(issued_at + gone_s), MINUTE_MS)
    assert waits == wait_s * 1000
    assert since_issue_ms(not_before, UnixSeconds(issued_at), 0) == 0


def test_who_came_too_early_has_the_next_turn_for_one_turn() -> None:
    """The sweep yields to it, once, and not for ever."""
    pace = Pace()
    pace.begin("m1", Millis(0), MINUTE_MS)
    pace.ask("m1", 60_000, MINUTE_MS)
    assert pace.kept_until_ms("m1") == 120_000
    pace.ask("m1", 110_000, MINUTE_MS)
    assert pace.kept_until_ms("m1") == 120_000
    pace.begin("m1", Millis(60_000), MINUTE_MS)
    assert pace.kept_until_ms("m1") == 0


def test_who_asks_again_after_its_turn_was_over_is_given_another() -> None:
    """A worker held the host for minutes: a turn kept before that is of no use to it now."""
    pace = Pace()
    pace.begin("m1", Millis(0), MINUTE_MS)
    pace.ask("m1", 60_000, MINUTE_MS)
    pace.ask("m1", 500_000, MINUTE_MS)
    assert pace.kept_until_ms("m1") == 560_000


def test_a_restart_keeps_the_attempts_that_failed() -> None:
    """`kill -9` is no way to more attempts; time that went by meanwhile counts."""
    first, second = Pace(), Pace()
    first.begin("failed", Millis(100_000), MINUTE_MS)
    first.begin("issued", Millis(100_000), MINUTE_MS)
    first.succeeded("issued", pulled=False)
    raw = first.take_dirty(Millis(110_000), UnixSeconds(1000))
    assert first.take_dirty(Millis(110_000), UnixSeconds(1000)) == b""
    second.restore(raw, Millis(5_000), UnixSeconds(1020))
    assert second.turn_ms("failed", MINUTE_MS) == 5_000 + 60_000 - 10_000 - 20_000
    assert second.turn_ms("issued", MINUTE_MS) is None


def test_a_wall_clock_set_back_over_a_restart_holds_nobody_for_longer_than_a_turn() -> None:
    """Set back it says that no time went by; set ahead that all of it did."""
    first, back, ahead = Pace(), Pace(), Pace()
    first.begin("m1", Millis(100_000), MINUTE_MS)
    raw = first.take_dirty(Millis(100_000), UnixSeconds(10_000))
    back.restore(raw, Millis(0), UnixSeconds(10_000 - 3600))
    assert back.turn_ms("m1", MINUTE_MS) == 60_000
    ahead.restore(raw, Millis(0), UnixSeconds(10_000 + 3600))
    assert (ahead.turn_ms("m1", MINUTE_MS) or 0) < 0


@pytest.mark.parametrize("raw", [b"", b"\xc1", b"\x93abc", b"\x81" * 5000])
def test_a_damaged_record_holds_nobody(raw: bytes) -> None:
    """It is no reason for a broker not to start."""
    pace = Pace()
    pace.restore(raw, Millis(0), UnixSeconds(0))
    assert len(pace) == 0


def test_the_table_holds_what_a_minute_holds() -> None:
    """Hosts that were renewed long ago cost nothing; a storm has a bound."""
    pace = Pace()
    for number in range(10_000):
        pace.begin(f"m{number}", Millis(number * 10), MINUTE_MS)
    assert len(pace) <= MINUTE_MS // 10 + 1
    for number in range(10_000):
        pace.begin(f"n{number}", Millis(200_000), MINUTE_MS)
    assert len(pace) == 10_000
    assert KEYS_MAX > 100_000
    raw = pace.take_dirty(Millis(200_000), UnixSeconds(0))
    assert len(raw) < SAVED_MAX * 64


def test_attempts_of_random_hosts_at_random_moments_are_never_closer_than_the_pace() -> None:
    """The rule against a naive record of all attempts, restarts in between."""
    drawn, pace, last = random.Random(5), Pace(), dict[str, int]()
    now_ms = 0
    for _ in range(5_000):
        now_ms += drawn.randrange(0, 4_000)
        host = f"m{drawn.randrange(30)}"
        if drawn.random() < 0.01:
            raw = pace.take_dirty(Millis(now_ms), UnixSeconds(now_ms // 1000))
            pace, before = Pace(), pace
            pace.restore(raw, Millis(now_ms), UnixSeconds(now_ms // 1000)) if raw else None
            pace = pace if raw else before
        turn_ms = pace.turn_ms(host, MINUTE_MS)
        if turn_ms is None or turn_ms <= now_ms:
            assert now_ms - last.get(host, -MINUTE_MS) >= MINUTE_MS
            last[host] = now_ms
            pace.begin(host, Millis(now_ms), MINUTE_MS)


def test_a_backoff_leaves_attempts_before_the_end() -> None:
    """An hour's ceiling must not be the end of a certificate that has half an hour left."""
    state, now_s, attempts = Backoff(), 0, 0
    while now_s < 1_000:
        attempts += 1
        state = state.after_failure(
            Millis(now_s * 1000), min_ms=30_000, max_ms=3_600_000, left_s=1_200 - now_s
        )
        now_s = state.not_before_ms // 1000
    assert attempts >= 6
    assert now_s < 1_200


def test_what_has_ended_backs_off_as_usual() -> None:
    """There is nothing left to save, so nothing to hurry for."""
    state = Backoff().after_failure(Millis(0), min_ms=30_000, max_ms=60_000, left_s=-5)
    assert state.not_before_ms == 30_000
    near = Backoff().after_failure(Millis(0), min_ms=30_000, max_ms=60_000, left_s=1)
    assert near.not_before_ms == 1_000


def test_a_host_that_renewed_itself_is_known_until_a_push_succeeds() -> None:
    """Where the sweep has to wait, and until when."""
    pace = Pace()
    pace.succeeded("m1", pulled=True)
    assert pace.pulls("m1")
    pace.succeeded("m1", pulled=False)
    assert not pace.pulls("m1")


def test_too_few_attempts_name_settings_that_are_enough() -> None:
    """Whoever follows the advice is not warned again."""
    policy = Policy(leaf_lifetime_s=300, renew_at=0.667)
    assert attempts_left(policy, MINUTE_MS) == 2
    said = attempts_advice(policy, MINUTE_MS)
    assert "leaves 2 attempts" in said
    ways = dict(re.findall(r"(renew_at|leaf_lifetime)=([\d.]+m?)", said))
    mended = replace(policy, renew_at=float(ways["renew_at"]))
    assert attempts_advice(mended, MINUTE_MS) == ""
    longer = replace(policy, leaf_lifetime_s=int(ways["leaf_lifetime"].rstrip("m")) * 60)
    assert attempts_advice(longer, MINUTE_MS) == ""


def test_the_usual_policy_leaves_attempts_enough() -> None:
    """No warning without a reason."""
    assert attempts_advice(Policy(), MINUTE_MS) == ""
    assert attempts_advice(Policy(leaf_lifetime_s=300, renew_at=0.667), 0) == ""


@given(st.integers(1, 400 * 86_400), st.floats(0.01, 0.99), st.integers(0, 3_600_000))
def test_every_advice_is_a_sentence_with_a_way_or_none(
    lifetime_s: int, fraction: float, every_ms: int
) -> None:
    """Property: never a sentence that ends in nothing."""
    said = attempts_advice(Policy(leaf_lifetime_s=lifetime_s, renew_at=fraction), every_ms)
    assert not said or "=" in said
