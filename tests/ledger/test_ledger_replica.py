"""A follower's journal is the primary's, row by row; what does not continue it is refused whole."""

import dataclasses
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import (
    ForkedError,
    LedgerDamagedError,
    MalformedMessageError,
    StorageError,
    UnknownKindError,
)
from broker.ledger import journal, projection, replica
from broker.ledger.lines import line_bytes, line_of, mark_of, row_after, rows_of
from broker.ledger.replica import GENESIS, locator_sequences
from broker.ledger.rows import JournalRow
from broker.wire import facts
from broker.wire.codec import encode_fact
from broker.wire.facts import AnyFact
from broker.wire.replica import MARKS_MAX, Mark
from tests.ledger.ledger_facts import NOW, any_fact, issued, joined, mesh, revoked
from tests.ledger.ledger_pair import (
    ALL,
    Pair,
    again,
    checked_pair,
    install,
    state_of,
    two_ledgers,
    well_made,
)
from tests.ledger.ledger_room import write, write_what_fits

WORLDS = settings(max_examples=40, deadline=None)
Rows = list[JournalRow]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A primary with four rows and an empty follower."""
    with checked_pair() as two:
        yield two


@WORLDS
@given(st.lists(st.lists(any_fact, max_size=15), max_size=4), st.data())
def test_however_a_journal_is_split_into_pages_the_copy_is_the_same(
    world: list[list[AnyFact]], data: st.DataObject
) -> None:
    """Same rows, same head, same tables, same term, also after a restart."""
    with two_ledgers() as (primary, follower):
        for term, group in enumerate(world, start=1):
            primary.set_term(term)
            write_what_fits(primary, group)
        while follower.head != primary.head:
            rows = primary.rows_after(follower.head.sequence, data.draw(st.integers(0, 4000)))
            install(follower, rows_of(follower.locator()[0], map(line_of, rows)))
        assert follower.audit(0, 1000) == primary.audit(0, 1000)
        assert follower.differing_projections() == ()
        assert projection.dump(follower._connection) == projection.dump(primary._connection)
        assert follower.term == max(1, primary.head.term)
        restarted = again(follower)
        assert (restarted.head, restarted.verify_chain()[2]) == (primary.head, None)
        restarted.close()


# --- what does not continue ----------------------------------------------------------------------


def _altered(rows: Rows, index: int, **columns: object) -> Rows:
    changed = dataclasses.replace(rows[index], **columns)  # type: ignore[arg-type]  # any column
    return [*rows[:index], changed, *rows[index + 1 :]]


def _numbered(rows: Rows, sequence: int) -> Rows:
    """Return `rows` with a last one whose hash is right for a number that is not."""
    last = rows[-1]
    line = row_after(Mark(sequence - 1, last.previous_hash.hex()), line_of(last))
    return [*rows[:-1], line]


_REFUSED: dict[str, Callable[[Rows], Rows]] = {
    "a payload": lambda rows: _altered(rows, 2, payload=encode_fact(issued("a1", "0f"))),
    "an actor": lambda rows: _altered(rows, 0, actor="eve"),
    "a time": lambda rows: _altered(rows, 3, at=NOW + 1),
    "a hash": lambda rows: _altered(rows, 3, hash=bytes(32)),
    "the hash before": lambda rows: _altered(rows, 1, previous_hash=bytes(32)),
    "the number": lambda rows: _altered(rows, 1, sequence=7),
    "the number, well made": lambda rows: _numbered(rows, 9),
    "the order": lambda rows: [rows[0], rows[2], rows[1], rows[3]],
    "a gap": lambda rows: [rows[0], *rows[2:]],
    "a late start": lambda rows: rows[1:],
    "a row twice": lambda rows: [*rows, rows[3]],
    "a lower term": lambda rows: [*rows, *well_made(mark_of(rows[3]), 0, facts.AuthorityLocked())],
}


@pytest.mark.parametrize("alter", _REFUSED.values(), ids=_REFUSED.keys())
def test_rows_that_do_not_continue_the_journal_change_nothing(
    pair: Pair, alter: Callable[[Rows], Rows]
) -> None:
    """Not even the good ones before them; the group goes on as if nobody had tried."""
    primary, follower = pair
    rows = primary.rows_after(0, ALL)
    before = state_of(follower)
    follower.begin()
    with pytest.raises((ForkedError, MalformedMessageError)):
        follower.install(alter(rows))
    assert state_of(follower) == before
    follower.install(rows)
    follower.commit()
    assert follower.head == primary.head


def test_a_row_that_follows_another_row_is_a_fork_and_not_a_malformed_one(
    pair: Pair,
) -> None:
    """The caller looks for the common row then; a broken row it throws away."""
    primary, follower = pair
    rows = primary.rows_after(0, ALL)
    write(follower, mesh())
    follower.begin()
    with pytest.raises(ForkedError, match="row 2 does not follow row 1"):
        follower.install(rows[1:])
    with pytest.raises(ForkedError, match="row 1 does not follow row 1"):
        follower.install(rows)


def test_the_term_of_a_row_is_never_below_the_one_before_it(pair: Pair) -> None:
    """Within a page and at its seam: a deposed primary cannot write behind its successor."""
    primary, follower = pair
    install(follower, primary.rows_after(0, ALL))
    mark = follower.locator()[0]
    higher = well_made(mark, 5, facts.EnrollmentOpened())
    lower = well_made(mark_of(higher[0]), 4, facts.EnrollmentClosed())
    follower.begin()
    with pytest.raises(MalformedMessageError, match="term 4, behind term 5"):
        follower.install([*higher, *lower])
    follower.install(higher)
    with pytest.raises(MalformedMessageError, match="term 4, behind term 5"):
        follower.install(lower)


@pytest.mark.parametrize(
    ("event", "payload", "refusal"),
    [
        ("ca.locked", b"\xc1", MalformedMessageError),
        ("ca.locked", encode_fact(facts.EnrollmentOpened()), MalformedMessageError),
        ("tea.time", b"\x81\xa4kind\xa8tea.time", UnknownKindError),
    ],
    ids=["no fact", "another name", "newer release"],
)
def test_a_row_whose_payload_is_not_its_event_is_refused(
    pair: Pair, event: str, payload: bytes, refusal: type[Exception]
) -> None:
    """Its hash is right, but nothing could be folded from it, or not what it is called."""
    primary, follower = pair
    install(follower, primary.rows_after(0, ALL))
    before = state_of(follower)
    stamp = journal.Stamp(1, NOW, "atlas", "ab", "test")
    follower.begin()
    with pytest.raises(refusal):
        follower.install([journal.next_row(follower.head, stamp, event, payload)])
    assert state_of(follower) == before
    follower.commit()


def test_a_row_that_contradicts_the_journal_voids_the_whole_group(
    pair: Pair,
) -> None:
    """A journal cannot contradict itself: one side is damaged, and half a page is never kept."""
    primary, follower = pair
    install(follower, primary.rows_after(0, ALL))
    before = state_of(follower)
    mad = well_made(follower.locator()[0], 2, joined("db", "a2"), issued("a1", "01"))
    follower.begin()
    follower.local_set("note", b"of this group")
    with pytest.raises(LedgerDamagedError, match="contradict"):
        follower.install(mad)
    with pytest.raises(StorageError, match="failed before"):
        follower.commit()
    follower.rollback()
    assert (state_of(follower), follower.local_get("note")) == (before, None)


def test_installed_rows_vanish_with_their_group(pair: Pair) -> None:
    """What was not committed is not acknowledged either: the locator tells."""
    primary, follower = pair
    before = (state_of(follower), follower.locator())
    follower.begin()
    follower.install(primary.rows_after(0, ALL))
    assert follower.locator()[0].sequence == 4
    follower.rollback()
    assert (state_of(follower), follower.locator()) == before


def test_the_term_follows_the_rows_and_never_goes_back(pair: Pair) -> None:
    """A follower that is promoted later must not start below what it has copied or promised."""
    primary, follower = pair
    primary.set_term(6)
    write(primary, facts.EnrollmentOpened())
    install(follower, primary.rows_after(0, ALL))
    assert follower.term == 6
    follower.set_term(9)
    write(primary, facts.EnrollmentClosed())
    install(follower, primary.rows_after(5, ALL))
    assert (follower.term, follower.head.term) == (9, 6)


def test_copying_and_forking_need_an_open_group(pair: Pair) -> None:
    """The caller decides what happens together with the rows."""
    primary, follower = pair
    with pytest.raises(ValueError, match="no transaction"):
        follower.install(primary.rows_after(0, ALL))
    with pytest.raises(ValueError, match="no transaction"):
        primary.fork_at(GENESIS, NOW)


def test_a_page_without_rows_changes_nothing(pair: Pair) -> None:
    """The answer of a primary that has nothing new."""
    _primary, follower = pair
    before = state_of(follower)
    install(follower, [])
    assert state_of(follower) == before
    assert follower.shared([]) == 0


@pytest.mark.parametrize(
    ("fact", "actor"),
    [
        (facts.RenewalFailed("a1", "x" * 1025), "test"),
        (joined("web2", "not hex"), "test"),
        (facts.EnrollmentOpened(), "x" * 1025),
    ],
    ids=["a long text", "a foreign id", "a long actor"],
)
def test_a_row_that_no_follower_could_read_is_not_written(
    pair: Pair, fact: AnyFact, actor: str
) -> None:
    """One of them would end replication for ever, and nobody could fold the journal again."""
    primary, _follower = pair
    before = state_of(primary)
    primary.begin()
    with pytest.raises(ValueError, match=r"read again|an actor of"):
        primary.append(fact, actor=actor, now=NOW)
    assert state_of(primary) == before
    primary.append(facts.EnrollmentOpened(), actor="x" * 1024, now=NOW)
    primary.commit()


# --- marks and pages -----------------------------------------------------------------------------


@given(st.integers(0, 2**53))
def test_a_locator_is_dense_at_the_end_sparse_before_and_reaches_the_beginning(head: int) -> None:
    """A fork is found at the cost of at most as many rows again as it has."""
    chosen = locator_sequences(head)
    assert len(chosen) <= MARKS_MAX
    assert list(chosen) == sorted(set(chosen), reverse=True)
    assert (chosen[0], chosen[-1]) == (head, 0)
    assert set(range(head, max(head - 8, -1), -1)) <= set(chosen)
    assert head == 0 or 1 in chosen
    for newer, older in pairwise(chosen):
        assert newer - older <= max(2, head - newer + 2)


def test_a_locator_names_rows_of_this_journal(pair: Pair) -> None:
    """Number and hash of each, and what precedes the first."""
    primary, follower = pair
    rows = primary.rows_after(0, ALL)
    assert primary.locator() == (*(mark_of(row) for row in reversed(rows)), GENESIS)
    assert follower.locator() == (GENESIS,)
    assert primary.mark_at(3) == mark_of(rows[2])
    with pytest.raises(ValueError, match="sequence=5"):
        primary.mark_at(5)


def test_the_common_mark_is_the_newest_one_by_number_and_hash(
    pair: Pair,
) -> None:
    """Not by its place in the locator, and never by the number alone."""
    primary, follower = pair
    write(follower, mesh())
    second = primary.mark_at(2)
    foreign = Mark(4, second.hash)
    assert primary.common_mark((GENESIS, foreign, second, primary.mark_at(1))) == second
    assert primary.common_mark(follower.locator()) == GENESIS
    assert primary.common_mark((Mark(0, "11" * 32), foreign)) is None
    assert primary.common_mark(()) is None


def test_a_page_of_rows_is_bounded_by_bytes_and_by_count(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But a row that is larger than a page goes alone: otherwise nothing ever would."""
    primary, _follower = pair
    rows = primary.rows_after(0, ALL)
    two = line_bytes(rows[1]) + line_bytes(rows[2])
    assert primary.rows_after(1, two) == rows[1:3]
    assert primary.rows_after(1, two - 1) == rows[1:2]
    assert primary.rows_after(1, 0) == rows[1:2]
    assert primary.rows_after(4, ALL) == []
    monkeypatch.setattr(replica, "ROWS_MAX", 3)
    assert primary.rows_after(0, ALL) == rows[:3]


def test_reading_a_page_is_a_walk_along_the_key(pair: Pair) -> None:
    """However long the journal is; nothing is scanned or sorted."""
    primary, _follower = pair
    for statement in (replica._ROWS, replica._HASHES, replica._AT):
        values = (1, 2)[: statement.count("?")]
        plan = primary._connection.execute(f"EXPLAIN QUERY PLAN {statement}", values).fetchall()
        assert [line[3].split(" (")[0] for line in plan] == [
            "SEARCH journal USING INTEGER PRIMARY KEY"
        ]


def test_a_line_becomes_the_row_it_was(pair: Pair) -> None:
    """Number and hashes follow from the row before, by the same formula."""
    primary, _follower = pair
    rows = primary.rows_after(0, ALL)
    assert row_after(mark_of(rows[1]), line_of(rows[2])) == rows[2]
    assert rows_of(GENESIS, map(line_of, rows)) == rows
    altered = dataclasses.replace(rows[0], actor="eve")
    assert rows_of(GENESIS, map(line_of, [altered, *rows[1:]]))[-1].hash != rows[-1].hash


def test_shared_rows_are_counted_up_to_the_first_that_differs(pair: Pair) -> None:
    """So that a fork is made no deeper than it is."""
    primary, follower = pair
    rows = primary.rows_after(0, ALL)
    install(follower, rows[:3])
    write(follower, revoked("a1"))
    assert [follower.shared(rows), follower.shared(rows[1:3]), follower.shared(rows[3:])] == [
        3,
        2,
        0,
    ]
