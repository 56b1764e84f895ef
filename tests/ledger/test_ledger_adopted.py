"""Folds of what came home after a fork, and of the succession."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.ledger.rows import ReviewRow
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from broker.wire import facts
from broker.wire.facts import AnyFact, Origin
from tests.ledger.ledger_facts import (
    DAY_S,
    NOW,
    adopted,
    asked,
    conflict,
    endpoint,
    invited,
    issued,
    joined,
    mesh,
    promoted,
    renewed,
    revoked,
)
from tests.ledger.ledger_room import opened, write


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    """The ledger of a primary in term 2 with a founder; it agrees with its journal at the end."""
    ledger = opened(home)
    write(ledger, mesh(), joined("atlas", "f1", "primary"), joined("boreas", "f2"))
    ledger.set_term(2)
    yield ledger
    assert ledger.differing_projections() == ()
    ledger.close()


def home_came(ledger: Ledger, *orphans: AnyFact, term: int = 1, first: int = 50) -> None:
    """Adopt these rows of another primary."""
    write(ledger, *(adopted(fact, term, first + number) for number, fact in enumerate(orphans)))


def roles(ledger: Ledger) -> dict[str, str]:
    """Return the roles of the key holders by host."""
    return {row.host: row.role for row in ledger.key_holders()}


def test_an_adopted_member_reads_back_as_if_it_had_joined_here(ledger: Ledger) -> None:
    """Times are those of the origin; the certificate is found inside the row that adopted it."""
    home_came(ledger, joined("web1", "a1"), issued("a1", "01"))
    member = ledger.member_by_host("web1")
    assert member is not None
    assert (member.joined_at, member.current_serial) == (NOW + 50, "01")
    found = ledger.certificate("01")
    assert found is not None
    assert found[1].certificate == b"der of 01"
    assert ledger.member_count() == 3


def test_a_fact_that_came_home_twice_changes_nothing(ledger: Ledger) -> None:
    """Also when it came by another way: a fold of an adopted fact never fails."""
    write(ledger, invited("b1"), asked("c1"), facts.TOTPStepUsed(7, "e1"))
    again = (joined("web1", "a1"), issued("a1", "01"), invited("b1"), asked("c1"))
    home_came(ledger, *again)
    home_came(ledger, *again)
    home_came(ledger, *again, first=80)
    assert (ledger.member_count(), len(ledger.certificates_of("a1", 9))) == (3, 1)
    for fact in again:
        with pytest.raises(ValueError, match="contradicts"):
            write(ledger, fact)
        ledger.rollback()


def test_one_origin_counts_once_whatever_it_is_said_to_hold(ledger: Ledger) -> None:
    """Its hash names it; a second content under the same name is somebody's mistake."""
    write(ledger, adopted(joined("web1", "a1"), 1, 50), adopted(joined("db", "a2"), 1, 50))
    assert (ledger.member_count(), ledger.member("a2")) == (3, None)


@pytest.mark.parametrize(
    "fact",
    [
        issued("a9", "09"),
        facts.StandbyReady("a9", "web1"),
        facts.FailoverPromoted("a9", "web1", "silence", ""),
    ],
)
def test_what_concerns_nobody_here_is_history_when_adopted_and_refused_when_written(
    ledger: Ledger, fact: AnyFact
) -> None:
    """A primary that writes such a row has a bug; one that adopts it has none."""
    home_came(ledger, fact, term=0)
    with pytest.raises(ValueError, match="contradicts"):
        write(ledger, fact)
    ledger.rollback()


def test_an_origin_is_known_as_a_row_of_this_journal_or_as_an_adopted_one(ledger: Ledger) -> None:
    """Both mean that it is home."""
    fact = adopted(joined("web1", "a1"), 1, 50)
    assert not ledger.holds_origin(fact.origin)
    [row] = write(ledger, fact)
    assert ledger.holds_origin(fact.origin)
    own = Origin(2, row.sequence, row.node, row.incarnation, row.at, "x", row.hash.hex())
    assert ledger.holds_origin(own)
    assert not ledger.holds_origin(Origin(2, 1, "atlas", "aa", NOW, "x", row.hash.hex()))


def test_an_adopted_certificate_is_current_only_if_it_is_the_newest(ledger: Ledger) -> None:
    """Whichever side issued it; the union of serials stays, the current one first."""
    write(ledger, joined("web1", "a1"), issued("a1", "01"), renewed("a1", "02", "01", NOW + DAY_S))
    home_came(ledger, renewed("a1", "03", "01", NOW + 100), renewed("a1", "04", "01", NOW + 200))
    assert [row.serial for row in ledger.certificates_of("a1", 9)] == ["02", "04", "03", "01"]
    home_came(ledger, renewed("a1", "05", "01", NOW + 2 * DAY_S), first=60)
    home_came(ledger, renewed("a1", "00", "01", NOW + 2 * DAY_S), first=70)
    home_came(ledger, renewed("a1", "06", "01", NOW + 2 * DAY_S), first=80)
    serials = [row.serial for row in ledger.certificates_of("a1", 9)]
    assert serials == ["06", "05", "00", "02", "04", "03", "01"]
    member = ledger.member("a1")
    assert member is not None
    assert member.current_serial == "06"
    assert ledger.next_renew_at() == NOW + 22 * DAY_S
    write(ledger, renewed("a1", "07", "06", NOW + DAY_S))
    assert [row.serial for row in ledger.certificates_of("a1", 9)][:2] == ["07", "06"]


def test_an_adopted_certificate_of_somebody_revoked_belongs_in_the_bundle(ledger: Ledger) -> None:
    """It was handed out, so it must be refused by name."""
    write(ledger, joined("web1", "a1"), issued("a1", "01", NOW + DAY_S), revoked("a1"))
    home_came(ledger, issued("a1", "02"), issued("a1", "03", NOW + 40 * DAY_S))
    assert {serial for serial, _ in ledger.revoked_serials(NOW)} == {"01", "02", "03"}
    assert {serial for serial, _ in ledger.revoked_serials(NOW + 50 * DAY_S)} == {"03"}
    assert ledger.bundle_sequence() == ledger.head.sequence
    home_came(ledger, _long("a1", "04"), first=90)
    assert ledger.bundle_sequence() == ledger.head.sequence
    assert {serial for serial, _ in ledger.revoked_serials(NOW + 100 * DAY_S)} == {"04"}


def _long(member_id: str, serial: str) -> facts.CertificateIssued:
    """Return a certificate that began earlier than others and ends later."""
    raw = issued(member_id, serial)
    ends = (UnixSeconds(NOW + 300 * DAY_S), raw.renew_at)
    return facts.CertificateIssued(
        member_id, serial, raw.key_hash, raw.not_before, *ends, raw.certificate
    )


def test_of_two_revocations_the_older_is_told(ledger: Ledger) -> None:
    """Smallest stamp: both sides then tell the same moment."""
    write(ledger, joined("web1", "a1"), issued("a1", "01"))
    write(ledger, revoked("a1"), now=NOW + 900)
    home_came(ledger, facts.MemberRevoked("a1", "web1", "older"))
    assert ledger.revoked_serials(NOW) == [("01", NOW + 50)]
    assert ledger.bundle_sequence() == ledger.head.sequence
    home_came(ledger, facts.MemberRevoked("a1", "web1", "younger"), term=1, first=60)
    assert ledger.revoked_serials(NOW) == [("01", NOW + 50)]
    assert ledger.member_count() == 2


def test_an_invite_moves_to_an_older_redeemer_and_keeps_its_term(ledger: Ledger) -> None:
    """A promoted primary honours invites by the term that minted them."""
    write(ledger, invited("b2"))
    home_came(ledger, invited("b1"), facts.InviteUsed("b2", "a1", "dd"))
    rows = {row.invite_id: (row.term, row.member_id) for row in ledger.invites(9)}
    assert rows == {"b1": (1, ""), "b2": (2, "a1")}
    write(ledger, facts.InviteUsed("b2", "a2", "ee"), facts.InviteUsed("b1", "a2", "ee"))
    home_came(ledger, facts.InviteUsed("b1", "a3", "ff"), first=90)
    rows = {row.invite_id: (row.term, row.member_id) for row in ledger.invites(9)}
    assert rows == {"b1": (1, "a3"), "b2": (2, "a1")}


def test_a_step_moves_to_its_older_spender_and_the_loser_is_remembered(ledger: Ledger) -> None:
    """Who lost and waits for a person must not be let in afterwards."""
    write(ledger, facts.TOTPStepUsed(7, "e2"))
    assert not ledger.totp_step_lost("e2")
    home_came(ledger, facts.TOTPStepUsed(7, "e1"), facts.TOTPStepUsed(7, "e3"))
    assert [ledger.totp_step_lost(key) for key in ("e1", "e2", "e3")] == [False, True, True]
    with pytest.raises(ValueError, match="contradicts"):
        write(ledger, facts.TOTPStepUsed(7, "e4"))
    ledger.rollback()


def test_the_first_decision_on_an_approval_counts_across_a_fork(ledger: Ledger) -> None:
    """By stamp; once somebody joined by it, it is settled, and the older join has it."""

    def decided() -> tuple[str, str]:
        row = ledger.approval("c1")
        assert row is not None
        return row.state, row.member_id or row.operator

    write(ledger, asked("c1"), facts.ApprovalDenied("c1", "ann", "who?"))
    home_came(ledger, facts.ApprovalGranted("c1", "bob"), facts.ApprovalDenied("c1", "cid", ""))
    assert decided() == ("approved", "bob")
    write(ledger, joined("web1", "a2", approval_id="c1"))
    home_came(ledger, facts.ApprovalExpired("c1"), term=0)
    assert decided() == ("issued", "a2")
    home_came(ledger, joined("web1", "a1", approval_id="c1"), first=90)
    home_came(ledger, joined("web1", "a3", approval_id="c1"), first=91)
    assert decided() == ("issued", "a1")


def test_doors_are_where_the_last_writer_saw_them(ledger: Ledger) -> None:
    """An older report that comes home late must not point at doors long closed."""
    write(ledger, joined("web1", "a1"))
    home_came(ledger, facts.MemberMoved("a1", endpoint("web1", 1111)))
    assert _door(ledger) == 1111
    write(ledger, facts.MemberMoved("a1", endpoint("web1", 2222)))
    home_came(ledger, facts.MemberMoved("a1", endpoint("web1", 3333)), first=90)
    assert _door(ledger) == 2222


def _door(ledger: Ledger) -> int:
    member = ledger.member("a1")
    assert member is not None
    return member.endpoint.mesh_port


def test_what_another_primary_heard_of_the_loop_is_history_here(ledger: Ledger) -> None:
    """The member reports again, to the primary in charge."""
    write(ledger, joined("web1", "a1"))
    home_came(ledger, facts.CertificateServed("a1", "01", "failed", "probe"))
    home_came(ledger, facts.RenewalFailed("a1", "timeout"), first=60)
    member = ledger.member("a1")
    assert member is not None
    assert (member.served, member.last_error) == ("unknown", "")


def test_the_window_is_as_its_last_writer_left_it(ledger: Ledger) -> None:
    """By stamp, not by the moment it came home."""

    def is_open() -> bool:
        row = ledger.mesh()
        assert row is not None
        return row.enrollment_open

    home_came(ledger, facts.EnrollmentOpened())
    assert is_open()
    write(ledger, facts.EnrollmentClosed())
    home_came(ledger, facts.EnrollmentOpened(), first=90)
    assert not is_open()


def test_of_two_active_enrollments_the_older_by_stamp_owns_the_name(ledger: Ledger) -> None:
    """Rows stand in the order they came home, which says nothing about age."""
    write(ledger, joined("web1", "a2"))
    home_came(ledger, joined("web1", "a1"))
    owner = ledger.member_by_host("web1")
    assert owner is not None
    assert owner.member_id == "a1"
    [line] = [member for member, _ in ledger.members_page("", 9) if member.host == "web1"]
    assert line.member_id == "a1"


def test_a_nominated_member_holds_no_key_until_it_is_ready(ledger: Ledger) -> None:
    """The bundle changes when the key holders do."""
    before = ledger.bundle_sequence()
    write(ledger, facts.StandbyNominated("f2", "boreas"))
    assert [row.host for row in ledger.nominated()] == ["boreas"]
    assert (roles(ledger), ledger.bundle_sequence()) == ({"atlas": "primary"}, before)
    write(ledger, facts.StandbyReady("f2", "boreas"))
    assert ledger.nominated() == []
    assert roles(ledger) == {"atlas": "primary", "boreas": "standby"}
    assert ledger.bundle_sequence() == ledger.head.sequence
    write(ledger, facts.StandbyRemoved("f2", "boreas", "retired"))
    assert roles(ledger) == {"atlas": "primary"}
    assert ledger.bundle_sequence() == ledger.head.sequence


def test_a_promotion_makes_one_primary_and_standbys_of_the_others(ledger: Ledger) -> None:
    """And changes the bundle, also when the same member is promoted again."""
    write(ledger, facts.StandbyReady("f2", "boreas"), promoted("f2", "boreas"))
    assert roles(ledger) == {"atlas": "standby", "boreas": "primary"}
    write(ledger, promoted("f2", "boreas"))
    assert ledger.bundle_sequence() == ledger.head.sequence


def test_an_older_promotion_that_comes_home_makes_a_standby(ledger: Ledger) -> None:
    """A primary of the past is none, and does not depose the one in charge."""
    ledger.set_term(3)
    write(ledger, facts.StandbyReady("f2", "boreas"), promoted("f1", "atlas"))
    home_came(ledger, promoted("f2", "boreas"), term=2)
    assert roles(ledger) == {"atlas": "primary", "boreas": "standby"}
    home_came(ledger, facts.StandbyRemoved("f1", "atlas", "retired"), term=2, first=60)
    assert roles(ledger)["atlas"] == "primary"


def test_nobody_is_the_primary_by_an_adopted_join(ledger: Ledger) -> None:
    """That takes a promotion."""
    home_came(ledger, joined("mail", "a1", "primary"))
    assert roles(ledger) == {"atlas": "primary", "mail": "standby"}


def test_a_conflict_is_on_the_list_until_a_person_has_looked(ledger: Ledger) -> None:
    """Once looked at it does not come back, by whichever way it is told again."""
    write(ledger, conflict("d1"), conflict("d2", "db"))
    first = ledger.reviews(1)[0]
    texts = ("hostname", "web1", "member a1", "member a2")
    assert first == ReviewRow("d1", *texts, UnixSeconds(NOW), first.sequence, open=True)
    write(ledger, facts.MergeReviewed("d1"), conflict("d1"))
    home_came(ledger, conflict("d1"), conflict("d3"))
    assert [row.review_id for row in ledger.reviews(9)] == ["d2", "d3"]
    assert ledger.review_count() == 2
    assert [ledger.review_listed(name) for name in ("d1", "d2", "d9")] == [True, True, False]
    home_came(ledger, facts.MergeReviewed("d2"), first=90)
    assert [row.review_id for row in ledger.reviews(9)] == ["d3"]
