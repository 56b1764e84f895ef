"""Registers of the mergeable roster: the window and roles go to their last writer, by stamp."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.entries import (
    ENROLLMENT,
    Entry,
    Join,
    Listed,
    Promotion,
    Revocation,
    Write,
    role_of,
)
from broker.core.merge import FactSet, merge
from broker.core.settle import settle
from broker.wire.stamp import Stamp

LAST = Stamp(9, 99, "zz", "ff")


def at(term: int, sequence: int, node: str = "atlas") -> Stamp:
    """Return a stamp; the incarnation follows from the node."""
    return Stamp(term, sequence, node, f"{ord(node[0]):x}")


def writes(*entries: Entry) -> FactSet:
    """Return a world that began with a closed door."""
    first = Write(at(1, 1), ENROLLMENT, "closed")
    return FactSet.of([first, *entries])


SEEN = frozenset({at(1, 1)})


def test_the_last_writer_has_the_window_and_the_loser_is_listed() -> None:
    """By term first: who was promoted later decides, whatever the row number."""
    value = writes(
        Write(at(1, 30), ENROLLMENT, "open", SEEN),
        Write(at(2, 12, "boreas"), ENROLLMENT, "closed", SEEN),
    )
    assert not value.enrollment_open
    [verdict] = settle(value)
    assert (verdict.rule, verdict.loser) == ("enrollment", "")
    assert (verdict.kept.value, verdict.lost.value) == ("closed", "open")
    assert (verdict.kept.stamp, verdict.lost.stamp) == (at(2, 12, "boreas"), at(1, 30))


def test_a_write_over_one_that_its_writer_saw_is_no_conflict() -> None:
    """An operator who changes his mind needs no review."""
    value = writes(
        Write(at(1, 30), ENROLLMENT, "open", SEEN),
        Write(at(2, 12), ENROLLMENT, "closed", SEEN | {at(1, 30)}),
    )
    assert settle(value) == ()


def test_only_the_end_of_a_losing_line_is_listed_and_only_if_it_differs() -> None:
    """What its own writer changed back is not lost."""
    line = [
        Write(at(1, 30), ENROLLMENT, "open", SEEN),
        Write(at(1, 31), ENROLLMENT, "closed", SEEN | {at(1, 30)}),
    ]
    assert settle(writes(*line, Write(at(2, 12), ENROLLMENT, "closed", SEEN))) == ()
    [verdict] = settle(writes(*line, Write(at(2, 12), ENROLLMENT, "open", SEEN)))
    assert verdict.lost.stamp == at(1, 31)


def test_a_review_is_asked_for_once() -> None:
    """Merging the same journals again must not fill the list."""
    value = writes(
        Write(at(1, 30), ENROLLMENT, "open", SEEN), Write(at(2, 12), ENROLLMENT, "closed", SEEN)
    )
    [verdict] = settle(value)
    assert settle(merge(value, FactSet.of([Listed(LAST, verdict.review_id)]))) == ()
    assert settle(merge(value, FactSet.of([Listed(LAST, "another")]))) == (verdict,)


def test_a_role_conflict_of_somebody_revoked_is_nobodys_business() -> None:
    """There is nothing left that a person could decide."""
    roles = [
        Write(at(1, 3), role_of("a1"), "member"),
        Write(at(1, 30), role_of("a1"), "standby", frozenset({at(1, 3)})),
        Write(at(2, 12), role_of("a1"), "member", frozenset({at(1, 3)})),
    ]
    [verdict] = settle(FactSet.of(roles))
    assert (verdict.rule, verdict.subject) == ("role", "a1")
    assert settle(FactSet.of([*roles, Revocation(at(2, 13), "a1")])) == ()


def _holder(member_id: str, *written: tuple[Stamp, str]) -> Iterable[Entry]:
    for stamp, role in written:
        yield Write(stamp, role_of(member_id), role)
        if role == "primary":
            yield Promotion(stamp, member_id)


def test_who_was_promoted_once_but_not_last_is_a_standby() -> None:
    """Two primaries in one roster would both be believed."""
    value = FactSet.of(
        [
            *_holder("a1", (at(1, 2), "member"), (at(2, 9), "primary")),
            *_holder("a2", (at(1, 3), "standby"), (at(3, 12), "primary")),
            *_holder("a3", (at(1, 4), "nominated")),
        ]
    )
    assert value.primary == "a2"
    assert [value.role(member) for member in ("a1", "a2", "a3")] == [
        "standby",
        "primary",
        "nominated",
    ]


def test_before_any_promotion_the_oldest_that_joined_as_primary_is_it() -> None:
    """The founder; whoever is adopted with that word is none."""
    value = FactSet.of(
        [
            Join(at(1, 2), "a1", "db"),
            Write(at(1, 2), role_of("a1"), "primary"),
            Join(at(1, 9), "a2", "web1"),
            Write(at(1, 9), role_of("a2"), "primary"),
        ]
    )
    assert (value.primary, value.role("a2")) == ("a1", "standby")


_any_stamp = st.builds(
    Stamp,
    st.integers(0, 2**53 - 1),
    st.integers(0, 2**53 - 1),
    st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,8}[a-z0-9])?", fullmatch=True),
    st.text("0123456789abcdef", max_size=4),
)


@given(_any_stamp, _any_stamp)
def test_texts_of_stamps_sort_as_the_stamps_do(one: Stamp, two: Stamp) -> None:
    """Columns are compared by SQLite, byte by byte."""
    same_row = Stamp(one.term, one.sequence, two.node, two.incarnation)
    for other in (two, same_row):
        by_text = one.text.encode() < other.text.encode()
        assert by_text == (one < other)


@pytest.mark.parametrize(
    ("older", "younger"),
    [
        (at(1, 90), at(2, 3)),
        (at(2, 3), at(2, 4)),
        (at(2, 3), at(2, 3, "boreas")),
        (Stamp(2, 3, "atlas", "01"), Stamp(2, 3, "atlas", "02")),
        (at(2, 3, "a"), at(2, 3, "a-b")),
    ],
)
def test_a_stamp_is_ordered_by_term_row_node_and_incarnation(older: Stamp, younger: Stamp) -> None:
    """In this order."""
    assert older < younger
    assert older.text < younger.text
