"""Return, duel, merge and planned hand-over between real brokers; pushed time."""

import hashlib

import pytest

from broker.errors import (
    ConflictError,
    NotPrimaryError,
    StaleTermError,
)
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.control import Ack
from broker.wire.enrollment import CreateInvite, InviteView, JoinAnswer
from broker.wire.ids import Service
from broker.wire.renewal import StartRekey
from broker.wire.roster import (
    RevocationAnswer,
    RevokeMember,
)
from broker.wire.standby import (
    ListReviews,
    PromoteHere,
    PromotionAnswer,
    ReviewsView,
    StepDown,
    StepDownAnswer,
)
from tests.shell.mesh_room import Room
from tests.shell.office import join_request, make_csr
from tests.shell.scenes import Make, events, fail_over


def test_a_returned_primary_serves_nothing_and_follows(room: Room) -> None:
    """A term that is over signs nothing."""
    fail_over(room)
    room["atlas"].restart()
    assert room["atlas"].phase == "pending"
    assert not room["atlas"].office.desk.state.serves
    room.run(6_000, until=lambda: room["atlas"].role == "standby" and room.lag("atlas") == 0)
    with pytest.raises(NotPrimaryError, match="not the primary") as refused:
        room["atlas"].ask(
            Service.CONSOLE, CreateInvite("ab" * 32, "elm", (), 3600, "ann"), InviteView
        )
    assert "ask birch" in refused.value.hint


def test_a_restart_within_the_fence_serves_at_once(room: Room) -> None:
    """Nobody takes over before the grace is over, so a short crash needs no questions."""
    room["atlas"].restart()
    assert room["atlas"].phase == "serving"


def test_a_call_of_an_old_term_is_refused_by_members(room: Room) -> None:
    """What a replaced primary signs nobody installs."""
    fail_over(room)
    room.run(2_000)
    with pytest.raises(StaleTermError):
        room["cedar"].ask(Service.GATEWAY, StartRekey(room["atlas"].peer, 1), Ack)


def test_of_two_primaries_exactly_one_steps_down(room: Room) -> None:
    """Defect 5: both demoted, then nobody was primary, and again (rows 28, 29, P9)."""
    room.cut("atlas", "birch")
    room.cut("atlas", "cedar")
    room.run(12_000, until=lambda: room.serves(room["birch"]))
    assert room.serves(room["atlas"])
    room.cuts.clear()
    room.run(6_000, until=lambda: room["atlas"].role == "standby")
    assert room.serves(room["birch"])
    assert room["birch"].office.ledger.term == 2


def test_what_a_cut_off_primary_wrote_comes_home(room: Room) -> None:
    """Nothing acknowledged is lost: the loser's rows are adopted by the merge rules.

    (row 29, P5)
    """
    room.cut("atlas", "birch")
    room.cut("atlas", "cedar")
    room.run(12_000, until=lambda: room.serves(room["birch"]))
    room["atlas"].ask(Service.CONSOLE, RevokeMember("cedar", "stolen", "ann"), RevocationAnswer)
    room.cuts.clear()
    room.run(8_000, until=lambda: room["atlas"].role == "standby" and room.lag("atlas") == 0)
    room.run(1_000)
    for host in ("atlas", "birch"):
        member = room[host].office.ledger.latest_member_of_host("cedar")
        assert member is not None
        assert member.state == "revoked"
        assert room[host].office.ledger.differing_projections() == ()
    assert room["atlas"].office.ledger.head == room["birch"].office.ledger.head
    assert room["atlas"].office.ledger.orphan_count() == 0
    assert "merge.adopted" in events(room, "birch")


def test_one_name_enrolled_on_both_sides_stays_with_the_older(room: Room) -> None:
    """Deterministic, visible, and listed for a person (row 29, P6)."""
    atlas, birch = room["atlas"], room["birch"]
    room.cut("birch", "atlas")
    room.cut("cedar", "atlas")
    room.join("elm", 5)
    elm_at_atlas = atlas.office.ledger.member_by_host("elm")
    assert elm_at_atlas is not None
    elm = room.nodes.pop("elm")
    elm.office.ledger.close()
    room.run(12_000, until=lambda: room.serves(birch))
    digest = hashlib.sha256(b"two").hexdigest()
    birch.ask(Service.CONSOLE, CreateInvite(digest, "elm", (), 3600, "ann"), InviteView)
    request = join_request("elm", make_csr("elm"), invite_secret="two")
    younger = birch.ask(Service.GATEWAY, request, JoinAnswer).member_id
    room.cuts.clear()
    room.run(10_000, until=lambda: atlas.role == "standby" and room.lag("atlas") == 0)
    room.run(1_000)
    for node in (atlas, birch):
        owner = node.office.ledger.member_by_host("elm")
        assert owner is not None
        assert owner.member_id == elm_at_atlas.member_id
        loser = node.office.ledger.member(younger)
        assert loser is not None
        assert loser.state == "revoked"
    reviews = birch.ask(Service.CONSOLE, ListReviews(), ReviewsView).reviews
    assert [review.subject for review in reviews] == ["elm"]


def test_a_step_down_hands_over_without_the_grace(room: Room) -> None:
    """A signed last beat spares everybody the waiting."""
    room.run(2_000)
    answer = room["atlas"].ask(Service.CONSOLE, StepDown("ann"), StepDownAnswer)
    assert answer.successor == "birch"
    room.run(2_000, until=lambda: room.serves(room["birch"]))
    assert room["atlas"].role == "standby"
    assert "failover.demoted" in events(room, "birch")
    room.run(3_000)
    assert room["atlas"].office.ledger.orphan_count() == 0


def test_nothing_is_written_after_the_last_row(room: Room) -> None:
    """Between the last row and the last beat the old primary only hands over."""
    room.run(2_000)
    room["atlas"].ask(Service.CONSOLE, StepDown("ann"), StepDownAnswer)
    with pytest.raises(NotPrimaryError, match="hands over"):
        room["atlas"].ask(Service.CONSOLE, RevokeMember("cedar", "lost", "ann"), RevocationAnswer)


def test_an_operator_at_the_standby_calls_the_living_primary(room: Room) -> None:
    """`standby promote` on the other box: the primary finishes and hands over."""
    room.run(2_000)
    answer = room["birch"].ask(Service.CONSOLE, PromoteHere("ann"), PromotionAnswer)
    assert answer.outcome == "asked"
    room.run(4_000, until=lambda: room.serves(room["birch"]))
    assert room["atlas"].role == "standby"


def test_nobody_steps_down_without_a_ready_successor(make: Make) -> None:
    """A mesh is not left without a primary by mistake."""
    room = make("birch", "cedar")
    with pytest.raises(ConflictError, match="no standby is ready"):
        room["atlas"].ask(Service.CONSOLE, StepDown("ann"), StepDownAnswer)


def test_locking_the_primary_hands_over(room: Room) -> None:
    """A locked primary serves nobody: it says goodbye with the key's last signature."""
    room.run(2_000)
    room["atlas"].ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    assert room["atlas"].role == "standby"
    room.run(4_000, until=lambda: room.serves(room["birch"]))


def test_a_lone_primary_that_is_locked_stays_primary(make: Make) -> None:
    """With nobody to hand over to, it waits for its passphrase."""
    room = make("birch")
    room["atlas"].ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    room.run(3_000)
    assert room["atlas"].role == "primary"


def test_a_handed_over_primary_does_not_come_back_by_itself(room: Room) -> None:
    """Fall-back to a former primary happens only by an operator."""
    room.run(2_000)
    room["atlas"].ask(Service.CONSOLE, StepDown("ann"), StepDownAnswer)
    room.run(30_000)
    assert room.primary().host == "birch"
