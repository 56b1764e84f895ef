"""When things are due: renewal, backoff, attempts, presence, the own certificate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.limiter import SOURCES_MAX, AttemptLimiter
from broker.core.own import OwnCertificate
from broker.core.presence import Presence, PresenceTable
from broker.core.renewal import Backoff, pull_at, renew_at
from broker.errors import ThrottledError
from broker.units import Millis, UnixSeconds

DAY = 86_400


def test_a_thirty_day_certificate_is_due_after_twenty_days() -> None:
    """Two thirds of the life, as everybody expects."""
    due = renew_at(UnixSeconds(0), UnixSeconds(30 * DAY), fraction=2 / 3, jitter=0.0)
    assert due == 20 * DAY


@given(
    st.integers(0, 2**40),
    st.integers(1, 400 * DAY),
    st.floats(0.05, 0.95),
    st.floats(0, 0.99),
)
def test_due_is_always_inside_the_lifetime(
    start: int, lifetime: int, fraction: float, jitter: float
) -> None:
    """Property: never before the start, never after the end."""
    due = renew_at(
        UnixSeconds(start), UnixSeconds(start + lifetime), fraction=fraction, jitter=jitter
    )
    assert due <= start + lifetime


@pytest.mark.parametrize(
    ("end", "fraction", "jitter"), [(0, 0.5, 0.0), (9, 0.0, 0.0), (9, 1.0, 0.0), (9, 0.5, 1.0)]
)
def test_nonsense_is_a_callers_bug(end: int, fraction: float, jitter: float) -> None:
    """Not a refusal: nobody outside can cause it."""
    with pytest.raises(ValueError, match="lifetime_s"):
        renew_at(UnixSeconds(0), UnixSeconds(end), fraction=fraction, jitter=jitter)


def test_a_member_waits_for_the_sweep_before_it_pulls() -> None:
    """Otherwise every renewal would be tried from both sides at once."""
    assert pull_at(UnixSeconds(100), UnixSeconds(0), UnixSeconds(1000)) == 150


def test_backoff_doubles_up_to_its_ceiling() -> None:
    """A broken member costs less and less, but is never given up."""
    state, waits = Backoff(), []
    for _ in range(6):
        state = state.after_failure(Millis(0), min_ms=30, max_ms=300)
        waits.append(state.not_before_ms)
    assert waits == [30, 60, 120, 240, 300, 300]
    assert not state.is_over(Millis(299))
    assert state.is_over(Millis(300))


def test_who_guesses_has_to_wait_and_nobody_else_does() -> None:
    """Three bad codes from anyone must not lock out everyone."""
    limiter = AttemptLimiter(attempts=3, window_ms=1000)
    for ms in (0, 10, 20):
        limiter.check("10.0.0.66", Millis(ms))
        limiter.failed("10.0.0.66", Millis(ms))
    with pytest.raises(ThrottledError) as refusal:
        limiter.check("10.0.0.66", Millis(30))
    assert refusal.value.retry_after_ms == 970
    limiter.check("10.0.0.7", Millis(30))
    limiter.check("10.0.0.66", Millis(1001))


def test_the_limiter_forgets_the_quietest_source_first() -> None:
    """A flood of sources cannot grow memory without bound."""
    limiter = AttemptLimiter(attempts=1, window_ms=10**9)
    for number in range(SOURCES_MAX + 1):
        limiter.failed(f"source-{number}", Millis(number))
    limiter.check("source-0", Millis(SOURCES_MAX + 1))
    with pytest.raises(ThrottledError):
        limiter.check("source-1", Millis(SOURCES_MAX + 1))


def test_presence_is_flushed_once_and_counts_who_enforces() -> None:
    """A heartbeat is not history."""
    table = PresenceTable({})
    fresh = Presence(UnixSeconds(100), "aa", "served", bundle_sequence=7, skew_s=0)
    stale = Presence(UnixSeconds(10), "bb", "served", bundle_sequence=9, skew_s=0)
    table.note("m1", fresh)
    table.note("m2", stale)
    assert table.take_dirty() == {"m1": fresh, "m2": stale}
    assert table.take_dirty() == {}
    assert table.enforcing(7, UnixSeconds(101)) == 1
    assert table.enforcing(8, UnixSeconds(101)) == 0


def test_a_node_without_a_certificate_is_due_at_once() -> None:
    """Nothing is known before the worker has looked; then a missing one is due now."""
    assert OwnCertificate().due_at(fraction=0.5, pulls=False) is None
    assert OwnCertificate(known=True).due_at(fraction=0.5, pulls=False) == 0


def test_a_member_is_due_later_than_the_primary_for_the_same_dates() -> None:
    """The sweep goes first."""
    own = OwnCertificate(
        known=True, present=True, not_before=UnixSeconds(0), not_after=UnixSeconds(1060)
    )
    alone = own.due_at(fraction=0.5, pulls=False)
    pulling = own.due_at(fraction=0.5, pulls=True)
    assert alone == 560
    assert pulling == 610
