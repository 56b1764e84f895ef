"""Grants to renewal workers on other machines: enrolled, bound, revoked, adopted across a fork."""

from pathlib import Path

import pytest

from broker.ledger.rows import WorkerRow
from broker.ledger.sqlite import Ledger
from broker.wire import facts
from broker.wire.codec import encode_fact
from tests.ledger.ledger_facts import NOW, joined, mesh, renaming, revoked
from tests.ledger.ledger_room import opened, write

KEY, OTHER = "aa" * 32, "bb" * 32


def enrolled(grant_id: str, member_id: str = "a1", host: str = "nas") -> facts.WorkerEnrolled:
    """Return a grant to the machine of a member."""
    return facts.WorkerEnrolled(grant_id, member_id, host)


def bound(grant_id: str, key: str = KEY, member_id: str = "a1") -> facts.WorkerBound:
    """Return the binding of a grant to a key."""
    return facts.WorkerBound(grant_id, member_id, key)


def ended(grant_id: str, member_id: str = "a1", host: str = "nas") -> facts.WorkerRevoked:
    """Return the end of a grant."""
    return facts.WorkerRevoked(grant_id, member_id, host)


def adopted(
    fact: facts.WorkerEnrolled | facts.WorkerBound | facts.WorkerRevoked, number: int, term: int = 2
) -> facts.FactAdopted:
    """Return `fact` as birch wrote it while it led on its own."""
    origin = facts.Origin(term, number, "birch", "ff", NOW, "ann", f"{number:064x}")
    tag = str(type(fact).__struct_config__.tag)
    return facts.FactAdopted(origin, tag, encode_fact(fact))


def _ledger(home: Path) -> Ledger:
    ledger = opened(home)
    write(ledger, mesh(), joined("atlas", "f1", "primary"), joined("nas", "a1"))
    return ledger


def _one(ledger: Ledger) -> WorkerRow:
    (row,) = ledger.workers(10)
    return row


def test_a_grant_reads_back_with_its_key_and_who_gave_it(home: Path) -> None:
    """The list answers: which machine, since when, who said so, with which key."""
    ledger = _ledger(home)
    write(ledger, enrolled("c1"))
    assert ledger.worker_by_key("") is None, "a grant without a key is nobody's"
    write(ledger, bound("c1"))
    row = WorkerRow("c1", "a1", "nas", KEY, NOW, "test", over=False)
    assert ledger.worker_by_key(KEY) == row
    assert ledger.workers_of("a1") == [row] == ledger.workers(10)
    assert ledger.worker_key_used(KEY)
    assert not ledger.worker_key_used(OTHER)
    assert ledger.differing_projections() == ()
    ledger.close()


def test_a_revoked_grant_gives_its_key_nothing_for_ever(home: Path) -> None:
    """And the key counts as used, so that it comes back under no other grant."""
    ledger = _ledger(home)
    write(ledger, enrolled("c1"), bound("c1"), ended("c1"), ended("c1"))
    assert ledger.worker_by_key(KEY) is None
    assert ledger.workers_of("a1") == []
    assert _one(ledger).over
    assert ledger.worker_key_used(KEY)
    ledger.close()


def test_a_grant_ends_with_its_member_and_follows_its_name(home: Path) -> None:
    """No second word is needed when a machine is put out; a renamed one goes on."""
    ledger = _ledger(home)
    write(ledger, enrolled("c1"), bound("c1"), renaming("a1", "nas", "store"))
    assert _one(ledger).host == "store"
    assert ledger.worker_by_key(KEY) is not None
    write(ledger, revoked("a1", "store"))
    assert ledger.worker_by_key(KEY) is None
    assert _one(ledger).over
    write(ledger, joined("store", "a9"))
    assert ledger.worker_by_key(KEY) is None, "the name alone brings nothing back"
    ledger.close()


def test_a_second_key_for_a_grant_is_a_contradiction(home: Path) -> None:
    """Of this journal's own making it leaves nothing behind."""
    ledger = _ledger(home)
    write(ledger, enrolled("c1"), bound("c1"))
    ledger.begin()
    with pytest.raises(ValueError, match="contradicts"):
        ledger.append(bound("c1", OTHER), actor="test", now=NOW)
    with pytest.raises(ValueError, match="contradicts"):
        ledger.append(enrolled("c1", "f1", "atlas"), actor="test", now=NOW)
    ledger.commit()
    assert _one(ledger).public_key == KEY
    assert not _one(ledger).over
    assert not ledger.worker_key_used(OTHER)
    ledger.close()


def test_a_grant_of_the_other_side_is_taken_over_with_its_maker(home: Path) -> None:
    """A fork loses no decision of a person."""
    ledger = _ledger(home)
    write(ledger, adopted(enrolled("c1"), 7), adopted(bound("c1"), 8))
    assert _one(ledger).enrolled_by == "ann"
    row = ledger.worker_by_key(KEY)
    assert row is not None
    assert row.grant_id == "c1"
    ledger.close()


def test_a_revocation_absorbs_also_ahead_of_its_enrolment(home: Path) -> None:
    """Rows of two sides arrive in any order; what anybody was told is over stays so."""
    ledger = _ledger(home)
    rows = (adopted(ended("c1"), 9), adopted(bound("c1"), 8), adopted(enrolled("c1"), 7))
    write(ledger, *rows)
    assert ledger.worker_by_key(KEY) is None
    assert _one(ledger).over
    assert ledger.differing_projections() == ()
    ledger.close()


def test_a_grant_bound_to_two_keys_on_two_sides_is_over(home: Path) -> None:
    """Nobody can tell which key was meant; the machine has to be enrolled again."""
    ledger = _ledger(home)
    write(ledger, enrolled("c1"), bound("c1"), adopted(bound("c1", OTHER), 8))
    assert ledger.worker_by_key(KEY) is None
    assert ledger.worker_by_key(OTHER) is None
    assert _one(ledger).over
    assert ledger.differing_projections() == ()
    ledger.close()


def test_the_same_key_bound_on_two_sides_is_one_binding(home: Path) -> None:
    """The worker told each primary the same: no conflict."""
    ledger = _ledger(home)
    write(ledger, enrolled("c1"), bound("c1"), adopted(bound("c1"), 8))
    assert not _one(ledger).over
    ledger.close()


def test_of_two_grants_with_one_key_the_one_bound_first_has_it(home: Path) -> None:
    """On the other side somebody may have told a key that is not theirs: it brings them nothing."""
    ledger = _ledger(home)
    write(ledger, joined("spy", "a2"))
    write(ledger, adopted(enrolled("c2", "a2", "spy"), 7), enrolled("c1"), bound("c1"))
    first = ledger.worker_by_key(KEY)
    write(ledger, adopted(bound("c2", KEY, "a2"), 900, term=9))
    assert first is not None
    assert ledger.worker_by_key(KEY) == first
    ledger.close()
