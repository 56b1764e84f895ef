"""What a ledger knows when orphans come home, row by row: enough for every rule of the merge."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.core.adoption import Orphan, adopt_page
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from broker.wire import facts
from broker.wire.codec import encode_fact
from broker.wire.facts import AnyFact, FactAdopted, MemberRevoked, MergeConflict
from tests.ledger.ledger_facts import (
    NOW,
    adopted,
    invited,
    issued,
    joined,
    mesh,
    promoted,
    revoked,
)
from tests.ledger.ledger_room import opened, write


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    """The ledger of a primary in term 3; it agrees with its journal at the end."""
    ledger = opened(home)
    write(ledger, mesh(), joined("atlas", "f1", "primary"), joined("boreas", "f2"))
    write(ledger, invited("b1"), facts.StandbyReady("f2", "boreas"))
    ledger.set_term(3)
    write(ledger, promoted("f1", "atlas"))
    yield ledger
    assert ledger.differing_projections() == ()
    ledger.close()


def bring(ledger: Ledger, term: int, *orphans: AnyFact, first: int = 50) -> list[AnyFact]:
    """Bring rows of another primary home one by one; return all that was written."""
    written: list[AnyFact] = []
    for number, fact in enumerate(orphans):
        origin = adopted(fact, term, first + number).origin
        rows = adopt_page([Orphan(origin, fact, encode_fact(fact))], ledger)
        write(ledger, *rows, now=NOW + 5)
        written.extend(rows)
    return written


def losers(written: list[AnyFact]) -> list[str]:
    """Return who was revoked."""
    return [fact.member_id for fact in written if isinstance(fact, MemberRevoked)]


def conflicts(written: list[AnyFact]) -> list[tuple[str, str]]:
    """Return what a person should look at."""
    return [(fact.rule, fact.subject) for fact in written if isinstance(fact, MergeConflict)]


def coded(host: str, member_id: str, key: str) -> tuple[AnyFact, ...]:
    """Return what a join with a TOTP code writes."""
    raw = issued(member_id, f"{key}0{member_id[1:]}")
    period = (raw.not_before, raw.not_after, raw.renew_at)
    certificate = facts.CertificateIssued(member_id, raw.serial, key, *period, raw.certificate)
    return facts.TOTPStepUsed(7, key), joined(host, member_id), certificate


def test_the_younger_enrollment_of_a_name_is_revoked_on_either_side(ledger: Ledger) -> None:
    """Whether ours is younger, or the one that comes home after another."""
    write(ledger, joined("web1", "a3"))
    written = bring(ledger, 1, joined("web1", "a1"))
    assert (losers(written), conflicts(written)) == (["a3"], [("hostname", "web1")])
    written = bring(ledger, 2, joined("web1", "a2"))
    assert (losers(written), conflicts(written)) == (["a2"], [("hostname", "web1")])
    owner = ledger.member_by_host("web1")
    assert owner is not None
    assert owner.member_id == "a1"


def test_a_name_is_not_lost_to_somebody_revoked_here_already(ledger: Ledger) -> None:
    """The revocation came first, the join it revokes comes home after it."""
    write(ledger, revoked("a1"), joined("web1", "a3"))
    assert losers(bring(ledger, 1, joined("web1", "a1"))) == []
    owner = ledger.member_by_host("web1")
    assert owner is not None
    assert owner.member_id == "a3"


def test_an_invite_is_taken_from_the_younger_redeemer_on_either_side(ledger: Ledger) -> None:
    """Our member when an older redemption comes home, theirs when a younger one does."""
    write(ledger, facts.InviteUsed("b1", "a3", "dd"), joined("web1", "a3"))
    first = (facts.InviteUsed("b1", "a1", "dd"), joined("db", "a1"))
    written = bring(ledger, 1, *first)
    assert (losers(written), conflicts(written)) == (["a3"], [("invite", "b1")])
    second = (facts.InviteUsed("b1", "a2", "dd"), joined("mail", "a2"))
    written = bring(ledger, 2, *second)
    assert (losers(written), conflicts(written)) == (["a2"], [("invite", "b1")])
    assert [ledger.member_by_host(host) is None for host in ("web1", "db", "mail")] == [
        True,
        False,
        True,
    ]


def test_a_loser_that_is_revoked_already_is_left_alone(ledger: Ledger) -> None:
    """There is nothing to revoke and nothing to look at."""
    write(ledger, facts.InviteUsed("b1", "a3", "dd"), joined("web1", "a3"), revoked("a3"))
    written = bring(ledger, 1, facts.InviteUsed("b1", "a1", "dd"), joined("db", "a1"))
    assert [type(fact) for fact in written] == [FactAdopted, FactAdopted]
    write(ledger, *coded("mail", "a4", "e4"), revoked("a4", "mail"))
    written = bring(ledger, 1, *coded("mail", "a5", "e5"), first=60)
    assert [type(fact) for fact in written] == [FactAdopted] * 3


def test_a_step_is_taken_from_every_younger_spender_on_either_side(ledger: Ledger) -> None:
    """Ours at once, theirs as soon as the certificate says whose key it was."""
    write(ledger, *coded("web1", "a3", "e3"))
    written = bring(ledger, 1, *coded("db", "a1", "e1"))
    assert (losers(written), conflicts(written)) == (["a3"], [("totp", "7")])
    written = bring(ledger, 2, *coded("mail", "a2", "e2"))
    assert (losers(written), conflicts(written)) == (["a2"], [("totp", "7")])
    assert ledger.member_count() == 3


def test_a_spender_that_joins_late_is_found_among_the_losers(ledger: Ledger) -> None:
    """Its step lost long before a person on the other side approved it."""
    bring(ledger, 1, facts.TOTPStepUsed(7, "e1"))
    bring(ledger, 2, facts.TOTPStepUsed(7, "e2"))
    written = bring(ledger, 2, *coded("mail", "a2", "e2")[1:], first=60)
    assert losers(written) == ["a2"]
    assert losers(bring(ledger, 2, *coded("db", "a4", "e4")[1:], first=70)) == []


def test_a_third_spender_of_a_step_makes_the_second_lose_once_only(ledger: Ledger) -> None:
    """The order in which three sides come home decides nothing."""
    bring(ledger, 2, *coded("mail", "a2", "e2"))
    written = bring(ledger, 1, *coded("db", "a1", "e1"))
    assert losers(written) == ["a2"]
    assert losers(bring(ledger, 0, *coded("web1", "a0", "e0"))) == ["a1"]
    assert ledger.member_count() == 3


def test_a_window_and_a_role_that_lost_are_listed_with_what_won(ledger: Ledger) -> None:
    """What our side wrote after the fork is compared with what theirs wrote."""
    write(ledger, facts.EnrollmentOpened(), facts.StandbyRemoved("f2", "boreas", "retired"))
    theirs = (facts.EnrollmentClosed(), facts.StandbyNominated("f2", "boreas"))
    written = bring(ledger, 1, *theirs)
    assert conflicts(written) == [("enrollment", "enrollment"), ("role", "boreas")]
    texts = [(review.kept.split(",")[0], review.lost.split(",")[0]) for review in ledger.reviews(9)]
    assert texts == [("open", "closed"), ("member", "nominated")]


def test_promotions_tell_what_the_other_side_had_seen(ledger: Ledger) -> None:
    """A write behind the first row of their term was not seen there, and loses visibly."""
    write(ledger, adopted(facts.EnrollmentOpened(), 1, 30))
    write(ledger, adopted(facts.StandbyNominated("f2", "boreas"), 1, 31))
    unseen = (facts.EnrollmentClosed(), facts.StandbyReady("f2", "boreas"))
    seen = (facts.EnrollmentOpened(), facts.StandbyRemoved("f2", "boreas", "retired"))
    written = bring(ledger, 2, promoted("f2", "boreas"), first=20)
    assert conflicts(written) == [("role", "boreas")]
    written = bring(ledger, 2, unseen[0], unseen[1], first=50)
    assert conflicts(written) == [("enrollment", "enrollment")]
    written = bring(ledger, 2, *seen, first=60)
    assert conflicts(written) == []


def test_a_promotion_of_an_earlier_page_still_tells_what_was_seen(ledger: Ledger) -> None:
    """The first row of a term came home long before the write that is judged by it."""
    write(ledger, adopted(facts.StandbyNominated("f2", "boreas"), 1, 31))
    bring(ledger, 2, promoted("f1", "atlas"), first=20)
    written = bring(ledger, 2, facts.StandbyReady("f2", "boreas"), first=50)
    assert conflicts(written) == [("role", "boreas")]


def test_a_conflict_that_was_listed_is_not_listed_again(ledger: Ledger) -> None:
    """Also when a person has closed it."""
    write(ledger, facts.EnrollmentOpened())
    [_, conflict] = bring(ledger, 1, facts.EnrollmentClosed())
    assert isinstance(conflict, MergeConflict)
    write(ledger, facts.MergeReviewed(conflict.review_id))
    origin = adopted(facts.EnrollmentClosed(), 1, 50).origin
    elsewhere = facts.Origin(
        1, 50, origin.node, origin.incarnation, UnixSeconds(NOW), "ann", "abcd"
    )
    again = adopt_page([Orphan.from_fact(elsewhere, facts.EnrollmentClosed())], ledger)
    assert [type(fact) for fact in again] == [FactAdopted]
