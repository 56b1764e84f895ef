"""A fork: rows that the primary does not have leave the journal, are kept, and brought home."""

import dataclasses
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import ForkedError, LedgerDamagedError, StorageError
from broker.ledger import journal, projection, replica
from broker.ledger.lines import line_bytes
from broker.ledger.replica import GENESIS
from broker.ledger.rows import JournalRow
from broker.ledger.sqlite import Ledger
from broker.wire import facts
from broker.wire.facts import AnyFact
from broker.wire.replica import Mark
from tests.ledger.ledger_facts import NOW, any_fact, issued, mesh, revoked
from tests.ledger.ledger_pair import (
    ALL,
    Pair,
    again,
    checked_pair,
    copy_all,
    guards,
    install,
    state_of,
    two_ledgers,
)
from tests.ledger.ledger_room import APPEND_ONLY, tamper, write, write_what_fits

WORLDS = settings(max_examples=40, deadline=None)
REQUEST = b"0123456789abcdef"


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A primary with four rows and an empty follower."""
    with checked_pair() as two:
        yield two


def _forked(pair: Pair) -> tuple[Ledger, list[JournalRow]]:
    """Return the follower with two rows of the primary and three of its own."""
    primary, follower = pair
    install(follower, primary.rows_after(0, ALL)[:2])
    follower.set_term(2)
    return follower, write(follower, issued("a1", "aa"), revoked("a1"), facts.EnrollmentOpened())


def _fork(ledger: Ledger, mark: Mark) -> int:
    ledger.begin()
    cut = ledger.fork_at(mark, NOW)
    ledger.commit()
    return cut


@WORLDS
@given(
    st.lists(any_fact, max_size=60),
    st.lists(any_fact, max_size=40),
    st.lists(any_fact, max_size=40),
    st.integers(0, 6000),
)
def test_after_a_fork_the_follower_is_the_primary_and_the_archive_holds_its_own_rows(
    common: list[AnyFact], own: list[AnyFact], others: list[AnyFact], page_bytes: int
) -> None:
    """Exactly the rows that the primary does not have are set aside, none lost or invented."""
    with two_ledgers() as (primary, follower):
        write_what_fits(primary, [mesh(), *common])
        copy_all(primary, follower)
        fork = follower.head
        primary.set_term(2)
        write_what_fits(primary, [revoked("a1"), *others])
        follower.set_term(3)
        write_what_fits(follower, own)
        orphans = follower.audit(fork.sequence, 1000)
        copy_all(primary, follower, page_bytes)
        assert follower.audit(0, 1000) == primary.audit(0, 1000)
        assert projection.dump(follower._connection) == projection.dump(primary._connection)
        assert follower.differing_projections() == ()
        assert follower.term == 3
        found = follower.orphans(ALL)
        assert found == [dataclasses.replace(row, previous_hash=b"") for row in orphans]
        restarted = again(follower, known=fork)
        assert (restarted.head, restarted.orphan_count()) == (primary.head, len(orphans))
        restarted.close()


def test_a_fork_sets_the_rows_behind_the_mark_aside_with_all_their_columns(pair: Pair) -> None:
    """The journal, its head and its tables stand where they stood at the mark."""
    follower, own = _forked(pair)
    assert _fork(follower, follower.mark_at(2)) == 3
    assert follower.head == journal.head_of(pair[0].rows_after(0, ALL)[1])
    assert follower.term == 2
    assert (follower.certificate("aa"), follower.revoked_members()) == (None, [])
    kept = follower._connection.execute(
        "SELECT hash, sequence, term, at, node, incarnation, actor, event, payload, archived_at, "
        "adopted FROM archive ORDER BY sequence"
    ).fetchall()
    expected = []
    for row in own:
        *columns, _previous, row_hash = dataclasses.astuple(row)
        expected.append((row_hash, *columns, NOW, 0))
    assert kept == expected


def test_a_fork_at_the_head_or_at_a_foreign_row_changes_nothing(pair: Pair) -> None:
    """Nothing to set aside; nowhere to stand."""
    follower, _own = _forked(pair)
    before = state_of(follower)
    follower.begin()
    assert follower.fork_at(follower.locator()[0], NOW) == 0
    for mark in (Mark(4, "11" * 32), Mark(9, "11" * 32), Mark(0, "11" * 32), pair[0].mark_at(4)):
        with pytest.raises(ForkedError):
            follower.fork_at(mark, NOW)
    follower.commit()
    assert state_of(follower) == before


def test_a_fork_needs_an_open_group(pair: Pair) -> None:
    """The rows that replace the old ones belong to the same commit."""
    with pytest.raises(ValueError, match="no transaction"):
        pair[0].fork_at(GENESIS, NOW)


def test_a_fork_and_the_rows_that_follow_are_one_commit(pair: Pair) -> None:
    """Down to the very beginning, and the guard of the journal is up again at once."""
    primary, _ = pair
    follower, own = _forked(pair)
    follower.begin()
    assert follower.fork_at(GENESIS, NOW) == 5
    assert guards(follower) == set(APPEND_ONLY)
    follower.install(primary.rows_after(0, ALL))
    follower.commit()
    assert follower.head == primary.head
    assert [row.hash for row in follower.orphans(ALL)] == [row.hash for row in own]


def test_a_fork_that_is_rolled_back_leaves_everything_and_the_guard(home: Path, pair: Pair) -> None:
    """Also for the file as a crash would leave it."""
    follower, _own = _forked(pair)
    before = state_of(follower)
    follower.begin()
    follower.fork_at(GENESIS, NOW)
    for path in follower._path.parent.glob("ledger.db*"):
        shutil.copy(path, home / path.name)
    follower.rollback()
    assert state_of(follower) == before
    crashed = Ledger.open(home / "ledger.db", node="boreas")
    assert (state_of(crashed), guards(crashed)) == (before, set(APPEND_ONLY))
    crashed.close()


def test_a_fork_that_breaks_off_anywhere_voids_its_group(pair: Pair) -> None:
    """Between archive, journal and tables there is no state that anybody could be left with."""
    follower, _own = _forked(pair)
    before = state_of(follower)
    steps = _steps_of_a_fork(follower)
    for step in range(0, steps, steps // 60):
        follower.begin()
        follower._connection.set_progress_handler(_stop_after(step), 1)
        with pytest.raises(StorageError, match="interrupted"):
            follower.fork_at(follower.mark_at(1), NOW)
        follower._connection.set_progress_handler(None, 0)
        with pytest.raises(StorageError, match="failed before"):
            follower.commit()
        follower.rollback()
        assert (state_of(follower), guards(follower)) == (before, set(APPEND_ONLY))


def _stop_after(steps: int) -> Callable[[], bool]:
    left = iter(range(steps))
    return lambda: next(left, None) is None


def _steps_of_a_fork(ledger: Ledger) -> int:
    """Return after how many steps of SQLite's machine a fork of this ledger is done."""
    taken: list[int] = []
    ledger.begin()
    ledger._connection.set_progress_handler(lambda: taken.append(1), 1)
    ledger.fork_at(ledger.mark_at(1), NOW)
    ledger._connection.set_progress_handler(None, 0)
    ledger.rollback()
    return len(taken)


@pytest.mark.parametrize(
    ("trouble", "refusal"),
    [(sqlite3.IntegrityError("twice"), LedgerDamagedError), (TypeError("no"), TypeError)],
)
def test_a_fork_whose_tables_cannot_be_rebuilt_is_refused_whole(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, trouble: Exception, refusal: type[Exception]
) -> None:
    """The old tables are not thrown away for nothing, and the journal is not cut."""
    follower, _own = _forked(pair)
    before = state_of(follower)

    def changed_its_mind(*_: object) -> None:
        raise trouble

    follower.begin()
    with monkeypatch.context() as release:
        release.setitem(projection.FOLDS, facts.MemberJoined, changed_its_mind)
        with pytest.raises(refusal):
            follower.fork_at(follower.mark_at(2), NOW)
    with pytest.raises(StorageError, match="failed before"):
        follower.commit()
    follower.rollback()
    assert state_of(follower) == before


def test_replies_remembered_before_a_fork_stay_good(pair: Pair) -> None:
    """Who asked this node while it was the primary gets the same answer again."""
    follower, _own = _forked(pair)
    follower.remember(REQUEST, b"issued", NOW)
    _fork(follower, follower.mark_at(2))
    assert follower.remembered(REQUEST) == b"issued"


@pytest.mark.parametrize("further", [0, 4])
def test_a_verified_head_that_was_cut_off_vouches_for_nothing_any_more(further: int) -> None:
    """The next start walks the whole journal, whether or not it has that many rows again."""
    with two_ledgers() as (primary, follower):
        write(primary, mesh())
        copy_all(primary, follower)
        write(primary, *[facts.EnrollmentOpened()] * further)
        write(follower, facts.EnrollmentClosed(), facts.EnrollmentOpened())
        known = follower.head
        copy_all(primary, follower)
        restarted = again(follower, known)
        assert (restarted.head, restarted.orphan_count()) == (primary.head, 2)
        restarted.close()
        tamper(follower._path.parent, "UPDATE journal SET actor = 'eve' WHERE sequence = 1")
        with pytest.raises(LedgerDamagedError, match="broken at row 1"):
            again(follower, known)


def test_a_short_fork_is_found_exactly_and_a_long_one_no_deeper_than_its_page(pair: Pair) -> None:
    """The locator has gaps; rows that the page brings again are not orphans."""
    primary, follower = pair
    write(primary, *[facts.EnrollmentOpened()] * 40)
    copy_all(primary, follower)
    own = write(follower, *[facts.EnrollmentClosed()] * 30)
    after = primary.common_mark(follower.locator())
    assert after is not None
    assert after.sequence < 44
    assert follower.shared(primary.rows_after(after.sequence, ALL)) == 44 - after.sequence
    copy_all(primary, follower)
    assert follower.orphan_count() == len(own)


# --- orphans -------------------------------------------------------------------------------------


def test_orphans_come_oldest_first_in_bounded_pages_until_they_are_adopted(pair: Pair) -> None:
    """A join goes before its certificate, and a page that was lost is brought again."""
    follower, own = _forked(pair)
    _fork(follower, follower.mark_at(2))
    two = line_bytes(own[0]) + line_bytes(own[1])
    for page, rows in ((two, own[:2]), (two - 1, own[:1]), (0, own[:1]), (ALL, own)):
        assert [row.hash for row in follower.orphans(page)] == [row.hash for row in rows]
    follower.orphans_adopted([own[0].hash, bytes(32)])
    assert [row.sequence for row in follower.orphans(ALL)] == [4, 5]
    follower.orphans_adopted([row.hash for row in own])
    assert (follower.orphans(ALL), follower.orphan_count()) == ([], 0)


def test_an_older_term_is_brought_before_a_younger_one(pair: Pair) -> None:
    """Whatever their row numbers were in the journals they were cut from."""
    follower, own = _forked(pair)
    _fork(follower, follower.mark_at(2))
    follower.set_term(7)
    write(follower, facts.EnrollmentClosed())
    _fork(follower, GENESIS)
    terms = [(row.term, row.sequence) for row in follower.orphans(ALL)]
    assert terms == [(1, 1), (1, 2), (2, 3), (2, 4), (2, 5), (7, 3)]
    assert follower.orphan_count() == len(own) + 3


def test_a_row_that_comes_back_word_for_word_is_no_orphan_any_more(pair: Pair) -> None:
    """Another standby had it and became the primary; nothing is left to be brought home."""
    follower, own = _forked(pair)
    _fork(follower, follower.mark_at(2))
    follower.orphans_adopted([own[0].hash])
    install(follower, own[:2])
    assert [row.hash for row in follower.orphans(ALL)] == [own[2].hash]
    assert _fork(follower, follower.mark_at(2)) == 2
    assert [row.hash for row in follower.orphans(ALL)] == [row.hash for row in own]


def test_an_adoption_vanishes_with_its_group(pair: Pair) -> None:
    """Else a row would be neither here nor there."""
    follower, own = _forked(pair)
    _fork(follower, follower.mark_at(2))
    follower.begin()
    follower.orphans_adopted([row.hash for row in own])
    assert follower.orphan_count() == 0
    follower.rollback()
    assert follower.orphan_count() == len(own)


def test_few_rows_at_a_time_are_taken_from_the_archive(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However small they are."""
    follower, own = _forked(pair)
    _fork(follower, follower.mark_at(2))
    monkeypatch.setattr(replica, "ROWS_MAX", 2)
    assert [row.hash for row in follower.orphans(ALL)] == [row.hash for row in own[:2]]
