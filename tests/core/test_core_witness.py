"""What members remember of the journal, and when a contradiction counts."""

from broker.core.witness import DOUBTS_MAX, MEMORY_S, WitnessBook, newest
from broker.units import Millis, UnixSeconds
from broker.wire.claims import Head

NOW = UnixSeconds(1_000_000)


def head(sequence: int, term: int = 1, digest: str = "aa") -> Head:
    """Return a head."""
    return Head(term, sequence, digest, "atlas", NOW)


def test_the_newest_head_is_the_one_of_the_later_term() -> None:
    """A number alone says nothing: an old primary may have written more."""
    assert newest((head(9), None, head(3, term=2))) == head(3, term=2)
    assert newest((None, None)) is None


def test_a_contradiction_counts_only_when_it_lasts() -> None:
    """Rows of a former primary come home; until then nobody should be woken."""
    book = WitnessBook()
    assert book.doubt("nas", head(5), Millis(1_000))
    assert not book.doubt("nas", head(5), Millis(2_000))
    assert book.due(Millis(1_999), 1_000) == ()
    (doubt,) = book.due(Millis(2_000), 1_000)
    assert book.contradicted_by() == ()
    book.settle(doubt, real=True)
    assert [found.host for found in book.contradicted_by()] == ["nas"]
    assert book.due(Millis(9_000), 1_000) == ()


def test_a_contradiction_that_came_home_is_forgotten() -> None:
    """And a drain that was void gives it another chance."""
    book = WitnessBook()
    book.doubt("nas", head(5), Millis(0))
    (doubt,) = book.due(Millis(10), 0)
    book.settle(doubt, real=True)
    book.reopen(doubt)
    assert book.due(Millis(10), 0) == (doubt,)
    book.settle(doubt, real=False)
    assert book.due(Millis(10), 0) == ()


def test_a_member_that_lies_all_the_time_costs_bounded_memory() -> None:
    """Anybody with a certificate can invent heads."""
    book = WitnessBook()
    for number in range(10 * DOUBTS_MAX):
        book.doubt("nas", head(number, digest=f"{number:04x}"), Millis(0))
    assert len(book.due(Millis(0), 0)) == DOUBTS_MAX


def test_a_member_not_heard_for_a_day_vouches_for_nothing() -> None:
    """Nor does one that left."""
    book = WitnessBook()
    book.agree("m1", "nas", head(5), NOW)
    book.agree("m2", "pi", head(5), NOW)
    assert book.witnesses(NOW) == 2
    book.forget("m2")
    assert book.witnesses(NOW) == 1
    assert book.witnesses(UnixSeconds(NOW + MEMORY_S + 1)) == 0
