"""The limiter: who guesses has to wait, nobody else does, and a restart helps nobody."""

import msgspec
import pytest

from broker.core.limiter import (
    CROWD_FACTOR,
    CROWDS_MAX,
    HOST_FACTOR,
    KEYS_MAX,
    AttemptLimiter,
    crowd_key,
    source_key,
)
from broker.errors import ThrottledError
from broker.units import Millis, UnixSeconds

WINDOW_MS = 300_000
ATTEMPTS = 5
T0 = UnixSeconds(1_900_000_000)
ROOM = 2 * KEYS_MAX
MALLORY = "10.0.0.66"


def limiter() -> AttemptLimiter:
    """Five attempts in five minutes."""
    return AttemptLimiter(ATTEMPTS, WINDOW_MS)


def guess(one: AttemptLimiter, source: str, times: int = ATTEMPTS, **fields: object) -> None:
    """Fail with a code."""
    ms = Millis(int(str(fields.get("ms", 0))))
    for _ in range(times):
        one.join_failed(source, str(fields.get("host", "nas")), ms, invited=False)


def may_join(one: AttemptLimiter, source: str, host: str = "nas", ms: int = 0) -> bool:
    """Whether a join by code gets as far as its code."""
    try:
        one.check_join(source, host, Millis(ms), invited=False)
    except ThrottledError:
        return False
    return True


def reborn(one: AttemptLimiter, ms: int, saved: UnixSeconds, now: UnixSeconds) -> AttemptLimiter:
    """Save at one moment of wall time and start again at another, with a new boot clock."""
    raw = one.take_dirty(Millis(ms), saved)
    assert raw
    next_one = limiter()
    assert next_one.restore(raw, Millis(0), now)
    return next_one


def test_defect_23_who_guesses_has_to_wait_and_nobody_else_does() -> None:
    """Three bad codes from anyone locked out everyone (row 42)."""
    one = limiter()
    guess(one, MALLORY, ATTEMPTS - 1)
    assert may_join(one, MALLORY)
    guess(one, MALLORY, 1, ms=1000)
    with pytest.raises(ThrottledError) as refusal:
        one.check_join(MALLORY, "nas", Millis(2000), invited=False)
    assert refusal.value.retry_after_ms == WINDOW_MS - 1000
    assert may_join(one, "10.0.0.7")
    assert not may_join(one, MALLORY, ms=WINDOW_MS)
    assert may_join(one, MALLORY, ms=WINDOW_MS + 1000)


def test_failures_are_forgotten_after_their_window() -> None:
    """A typo a day is no attack."""
    one = limiter()
    for day in range(20):
        guess(one, "10.0.0.7", 1, ms=day * 86_400_000)
    assert may_join(one, "10.0.0.7", ms=20 * 86_400_000)


def test_guesses_at_codes_keep_no_invited_host_out() -> None:
    """Behind one address sit the attacker and the guest with an invite (row 42)."""
    one = limiter()
    guess(one, MALLORY, 100)
    one.check_join(MALLORY, "nas", Millis(0), invited=True)
    for _ in range(ATTEMPTS):
        one.join_failed(MALLORY, "nas", Millis(0), invited=True)
    with pytest.raises(ThrottledError):
        one.check_join(MALLORY, "nas", Millis(0), invited=True)
    one.check_join("10.0.0.7", "nas", Millis(0), invited=True)


def test_guesses_for_one_host_from_many_addresses_are_counted_together() -> None:
    """Else every new address gives five more guesses for the same name."""
    one = limiter()
    for number in range(ATTEMPTS * HOST_FACTOR):
        assert may_join(one, f"10.0.1.{number}")
        guess(one, f"10.0.1.{number}", 1)
    assert not may_join(one, "10.0.9.9")
    assert may_join(one, "10.0.9.9", host="pi")
    one.check_join("10.0.9.9", "nas", Millis(0), invited=True)


def test_a_flood_of_addresses_does_not_free_whoever_is_locked() -> None:
    """Defect 23, the other way round: an attacker must not push his own record out."""
    one = limiter()
    guess(one, MALLORY)
    for number in range(3 * KEYS_MAX):
        guess(one, f"10.9.{number >> 8}.{number & 255}", 1, host=f"h{number}")
    assert not may_join(one, MALLORY)
    assert len(one) <= 5 * ROOM


def test_a_flood_of_locked_addresses_locks_their_neighbours_and_nobody_else() -> None:
    """With the table full of offenders, a stranger there shares attempts with the neighbourhood."""
    one = limiter()
    for number in range(KEYS_MAX):
        guess(one, f"10.9.{number >> 8}.{number & 255}", host=f"h{number}")
    for _ in range(ATTEMPTS * (CROWD_FACTOR + 1)):
        guess(one, "10.9.7.1", 1, host="x")
    assert not may_join(one, "10.9.7.2", host="y")
    assert may_join(one, "192.168.1.5", host="y")
    assert not may_join(one, "10.9.0.1", host="y")


def test_memory_stays_bounded_whatever_arrives() -> None:
    """100,000 failures from as many places, all tables at once."""
    one = limiter()
    for number in range(100_000):
        source = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        one.join_failed(source, f"h{number}", Millis(0), invited=number % 2 == 0)
        one.failed(f"name {number}", Millis(0))
    assert len(one) <= 4 * ROOM + CROWDS_MAX
    assert len(one.take_dirty(Millis(0), T0)) < 400_000


def test_a_restart_frees_nobody() -> None:
    """The windows are durable; what is left of them goes on."""
    one = limiter()
    guess(one, MALLORY)
    guess(one, "10.0.0.7", ATTEMPTS - 1, host="pi")
    again = reborn(one, 10_000, T0, UnixSeconds(T0 + 20))
    assert not may_join(again, MALLORY, host="x", ms=WINDOW_MS - 31_000)
    assert may_join(again, MALLORY, host="x", ms=WINDOW_MS - 30_000)
    guess(again, "10.0.0.7", 1, host="pi")
    assert not may_join(again, "10.0.0.7", host="pi")


def test_failed_unlocks_outlive_the_process() -> None:
    """Restarting the broker must not give five more passphrases (row 51)."""
    one = limiter()
    for _ in range(ATTEMPTS):
        one.failed("unlock", Millis(0))
    again = reborn(one, 0, T0, T0)
    with pytest.raises(ThrottledError):
        again.check("unlock", Millis(0))


@pytest.mark.parametrize("back_s", [60, 86_400, 10**9])
def test_a_clock_that_is_set_back_frees_nobody_and_locks_nobody_for_ever(back_s: int) -> None:
    """The wait begins again, and is no longer than a window (row 20)."""
    one = limiter()
    guess(one, MALLORY)
    again = reborn(one, 100_000, T0, UnixSeconds(T0 - back_s))
    assert not may_join(again, MALLORY, ms=WINDOW_MS - 100_001)
    assert may_join(again, MALLORY, ms=WINDOW_MS)


@pytest.mark.parametrize(
    "raw",
    [b"", b"garbage", b"\xc1", msgspec.msgpack.encode({"at": 1, "tables": {"code": {"a": "b"}}})],
)
def test_a_damaged_record_closes_what_can_be_guessed_for_one_window(raw: bytes) -> None:
    """Damage must be no way to more guesses; an invite cannot be guessed and stays good."""
    one = limiter()
    assert not one.restore(raw, Millis(0), T0)
    assert not may_join(one, "10.0.0.7")
    with pytest.raises(ThrottledError):
        one.check("unlock", Millis(WINDOW_MS - 1))
    one.check_join("10.0.0.7", "nas", Millis(0), invited=True)
    assert may_join(one, "10.0.0.7", ms=WINDOW_MS)


def test_a_restart_does_not_open_what_damage_closed() -> None:
    """The closing is part of what is saved."""
    one = limiter()
    one.restore(b"garbage", Millis(0), T0)
    again = reborn(one, 1000, T0, T0)
    assert not may_join(again, "10.0.0.7", ms=WINDOW_MS - 1001)
    assert may_join(again, "10.0.0.7", ms=WINDOW_MS)


def test_nothing_is_saved_while_nothing_changed() -> None:
    """An idle broker writes nothing; a save that failed is done again."""
    one = limiter()
    assert one.take_dirty(Millis(0), T0) == b""
    guess(one, MALLORY, 1)
    assert one.take_dirty(Millis(0), T0)
    assert one.take_dirty(Millis(0), T0) == b""
    one.mark_dirty()
    assert one.take_dirty(Millis(0), T0)


def test_a_host_with_a_whole_ipv6_network_is_one_source() -> None:
    """A /64 has more addresses than any table."""
    one = limiter()
    for number in range(ATTEMPTS):
        guess(one, f"fd00::{number:x}", 1, host=f"h{number}")
    assert not may_join(one, "fd00::ffff", host="x")
    assert may_join(one, "fd00:0:0:1::1", host="x")
    assert source_key("::ffff:10.0.0.7") == "10.0.0.7"


@pytest.mark.parametrize(
    ("source", "crowd"),
    [("10.0.0.7", "10.0.0.0/24"), ("fd00:0:0:7::1", "fd00::/48"), ("not an address", "")],
)
def test_neighbours_are_those_of_one_network(source: str, crowd: str) -> None:
    """What is no address has no neighbourhood."""
    assert crowd_key(source_key(source)) == crowd
