"""Names across a fork: renamings, bars, and whose word came last."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.core.adoption import Orphan, adopt_page
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from broker.wire import facts
from broker.wire.facts import AnyFact
from tests.ledger.ledger_facts import (
    NOW,
    adopted,
    endpoint,
    invited,
    joined,
    mesh,
    renaming,
    revoked,
)
from tests.ledger.ledger_room import opened, write


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    """The ledger of a primary in term 2; it agrees with its journal at the end."""
    ledger = opened(home)
    write(ledger, mesh(), joined("atlas", "f1", "primary"), joined("nas", "a1"))
    ledger.set_term(2)
    yield ledger
    assert ledger.differing_projections() == ()
    ledger.close()


def home_came(ledger: Ledger, *orphans: AnyFact, first: int = 50) -> None:
    """Adopt these rows of another primary, written in term 1."""
    write(ledger, *(adopted(fact, 1, first + number) for number, fact in enumerate(orphans)))


def reinstated(member_id: str = "a1") -> facts.MemberReinstated:
    """Return the word that frees the name of nas."""
    return facts.MemberReinstated("nas", member_id)


def gone(member_id: str, cause: str) -> facts.MemberRevoked:
    """Return an end without distrust."""
    return facts.MemberRevoked(member_id, "nas", "", cause)


def name(ledger: Ledger) -> tuple[str, str, str, tuple[str, ...]]:
    """Return every form of the name of a1."""
    member = ledger.member("a1")
    assert member is not None
    return member.host, member.endpoint.host, member.endpoint.server_name, member.sans


def test_a_renamed_member_is_found_under_its_new_name_alone(ledger: Ledger) -> None:
    """The identity stays: its id, its certificates, its role."""
    write(ledger, renaming("a1", "nas", "files"))
    assert name(ledger) == ("files", "files", "files.lab.internal", ("files.lab.internal",))
    assert ledger.member_by_host("nas") is None
    found = ledger.member_by_host("files")
    assert found is not None
    assert (found.member_id, ledger.member_count()) == ("a1", 2)


def test_the_last_writer_has_a_members_name(ledger: Ledger) -> None:
    """Two people renamed one machine during a partition; both sides read the same afterwards."""
    write(ledger, renaming("a1", "nas", "files"))
    home_came(ledger, renaming("a1", "nas", "older"))
    assert name(ledger)[0] == "files"
    write(ledger, renaming("a1", "files", "newer"))
    assert name(ledger)[0] == "newer"


def test_addresses_follow_the_last_move_and_names_the_last_renaming(ledger: Ledger) -> None:
    """A move of the other side knows the old name, a renaming the old doors: neither wins both."""
    write(ledger, renaming("a1", "nas", "files"), facts.MemberMoved("a1", endpoint("nas", 1111)))
    member = ledger.member("a1")
    assert member is not None
    assert (member.endpoint.mesh_port, name(ledger)[1:3]) == (1111, ("files", "files.lab.internal"))
    write(ledger, renaming("a1", "files", "media"))
    member = ledger.member("a1")
    assert member is not None
    assert (member.endpoint.mesh_port, member.endpoint.host) == (1111, "media")


@pytest.mark.parametrize("cause", ["left", "rejoined"])
def test_only_distrust_bars_a_name(ledger: Ledger, cause: str) -> None:
    """Who left by itself, or came back with another key, owes nobody an explanation."""
    write(ledger, gone("a1", cause))
    assert ledger.bar_of("nas") is None


def test_the_newest_identity_of_a_name_decides(ledger: Ledger) -> None:
    """The first revocation was answered for when the second machine was let in."""
    write(ledger, revoked("a1", "nas"))
    bar = ledger.bar_of("nas")
    assert bar is not None
    assert (bar.member_id, bar.reason) == ("a1", "stolen")
    write(ledger, joined("nas", "a2"), gone("a2", "left"))
    assert ledger.bar_of("nas") is None


def test_a_revocation_newer_than_the_word_that_freed_the_name_bars_it(ledger: Ledger) -> None:
    """One side revoked and reinstated; the other revoked later and knew of neither."""
    write(ledger, revoked("a1", "nas"))
    home_came(ledger, revoked("a1", "nas"), reinstated())
    assert ledger.bar_of("nas") is not None
    write(ledger, reinstated())
    assert ledger.bar_of("nas") is None


def test_an_older_revocation_that_comes_home_late_does_not_bar_again(ledger: Ledger) -> None:
    """The newest word counts, in whatever order the facts arrive."""
    write(ledger, revoked("a1", "nas"), reinstated())
    home_came(ledger, revoked("a1", "nas"))
    assert ledger.bar_of("nas") is None


def test_distrust_on_one_side_outlives_a_farewell_on_the_other(ledger: Ledger) -> None:
    """The older fact is told as the end, but a person's distrust is not lost with that."""
    write(ledger, revoked("a1", "nas"))
    home_came(ledger, gone("a1", "left"))
    assert ledger.bar_of("nas") is not None


def test_an_invite_counts_for_what_its_maker_could_know(ledger: Ledger) -> None:
    """Rows of this journal behind the join, the renaming and the revocation, and no older term."""
    write(ledger, invited("b1", "nas"))
    assert ledger.invite_postdates("b1", "a1")
    write(ledger, renaming("a1", "nas", "files"))
    assert not ledger.invite_postdates("b1", "a1")
    write(ledger, invited("b2", "files"))
    assert ledger.invite_postdates("b2", "a1")
    write(ledger, revoked("a1", "files"))
    assert not ledger.invite_postdates("b2", "a1")
    home_came(ledger, invited("b3", "files"))
    assert not ledger.invite_postdates("b3", "a1")
    write(ledger, invited("b4", "files"))
    assert ledger.invite_postdates("b4", "a1")


def adopting(ledger: Ledger, fact: AnyFact) -> list[str]:
    """Return who is revoked when another primary brings this row home."""
    origin = facts.Origin(1, 90, "boreas", "bb", UnixSeconds(NOW), "ann", "ab" * 32)
    rows = adopt_page((Orphan.from_fact(origin, fact),), ledger)
    return [row.member_id for row in rows if isinstance(row, facts.MemberRevoked)]


def test_a_renaming_that_comes_home_meets_whoever_has_the_name_here(ledger: Ledger) -> None:
    """The ledger has to bring both members before the merge rules, or two would have one name."""
    write(ledger, joined("files", "a2"))
    assert adopting(ledger, renaming("a1", "nas", "files")) == ["a2"]


def test_a_join_that_comes_home_meets_a_member_that_was_renamed_here(ledger: Ledger) -> None:
    """The older member is known here by a name that its join never had."""
    write(ledger, renaming("a1", "nas", "files"))
    assert adopting(ledger, joined("files", "a2")) == ["a2"]
    assert adopting(ledger, joined("nas", "a2")) == []
