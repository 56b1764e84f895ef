"""Which head a primary may show: one that a standby has, while there is one."""

from broker.core.followers import Followers
from broker.units import Millis

GRACE_MS = 30_000


def followers() -> Followers:
    """Return the followers of a primary that begins at 100 s."""
    return Followers(GRACE_MS, Millis(100_000))


def test_only_what_a_living_standby_has_is_shown() -> None:
    """The best of them could take over."""
    book = followers()
    book.note("b", 7, Millis(101_000))
    book.note("c", 5, Millis(101_000))
    assert book.shown(9, Millis(102_000), expected=True) == 7


def test_without_a_living_standby_the_own_head_is_all_there_is() -> None:
    """It followed, and has been silent for longer than a grace."""
    book = followers()
    book.note("b", 7, Millis(101_000))
    assert book.shown(9, Millis(131_000), expected=True) == 7
    assert book.shown(9, Millis(131_001), expected=True) == 9


def test_a_new_primary_waits_for_a_standby_that_was_heard() -> None:
    """A crash right after a promotion must not leave everybody behind its head."""
    book = followers()
    assert book.shown(9, Millis(101_000), expected=True) == 0
    assert book.shown(9, Millis(130_001), expected=True) == 9


def test_a_new_primary_that_hears_no_standby_shows_its_own_head() -> None:
    """Nobody could follow, so nobody is left behind."""
    assert followers().shown(9, Millis(101_000), expected=False) == 9


def test_a_shown_head_never_goes_back() -> None:
    """A standby that starts from the beginning does not undo what was shown."""
    book = followers()
    assert book.shown(9, Millis(101_000), expected=False) == 9
    book.note("b", 2, Millis(102_000))
    assert book.shown(9, Millis(103_000), expected=True) == 9


def test_a_standby_that_claims_more_than_there_is_does_not_raise_the_head() -> None:
    """It has rows of another journal."""
    book = followers()
    book.note("b", 99, Millis(101_000))
    assert book.shown(9, Millis(102_000), expected=True) == 9


def test_it_is_counted_who_has_a_row() -> None:
    """A revocation reports it."""
    book = followers()
    book.note("b", 7, Millis(101_000))
    book.note("c", 5, Millis(101_000))
    assert book.durable_on(6, Millis(102_000)) == (2, 1)
    assert book.durable_on(6, Millis(140_000)) == (0, 0)
    assert (book.sequence_of("b"), book.sequence_of("x")) == (7, 0)
