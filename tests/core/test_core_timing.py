"""When things are due: renewal, backoff, attempts, presence, the own certificate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.own import OwnCertificate
from broker.core.presence import Presence, PresenceTable
from broker.core.renewal import Backoff, pull_at, renew_at
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


def test_presence_is_flushed_once() -> None:
    """A heartbeat is not history."""
    table = PresenceTable({})
    fresh = Presence(UnixSeconds(100), "aa", "served", bundle_sequence=7, skew_s=0)
    stale = Presence(UnixSeconds(10), "bb", "served", bundle_sequence=9, skew_s=0)
    table.note("m1", fresh)
    table.note("m2", stale)
    assert table.take_dirty() == {"m1": fresh, "m2": stale}
    assert table.take_dirty() == {}


def test_only_a_member_heard_lately_with_the_bundle_counts_as_enforcing() -> None:
    """A wrong yes here would let somebody sleep while a stolen key still opens doors."""
    table = PresenceTable({})
    for member_id, seen_at, term, sequence in (
        ("holds", 100, 2, 7),
        ("behind", 100, 2, 6),
        ("of-an-earlier-term", 100, 1, 99),
        ("silent", 10, 2, 7),
    ):
        beat = Presence(UnixSeconds(seen_at), "aa", "served", sequence, 0, bundle_term=term)
        table.note(member_id, beat)
    names = ("holds", "behind", "of-an-earlier-term", "silent", "never-heard")
    members = [(name, name) for name in names]

    reach = table.reach(members, (2, 7), UnixSeconds(110), 30)

    assert reach.enforcing == 1
    assert reach.lacking == ("behind", "of-an-earlier-term")
    assert reach.away == ("silent", "never-heard")


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
