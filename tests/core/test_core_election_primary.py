"""A primary: what it gives way to, what it does not, and when it asks before it serves."""

from dataclasses import replace

import pytest

from broker.core.observation import Observation, Standing, Version
from broker.core.phases import Phase, Turn
from broker.units import Millis
from tests.core.succession import Seat, beat, claim


def primary(host: str = "b", term: int = 3, **more: bool) -> Seat:
    """Return a primary of term 3."""
    phase = Phase.CARETAKING if more.get("alone") else Phase.SERVING
    standing = Standing(phase, term, term, host, term, alone=bool(more.get("alone")))
    seat = Seat(host, phase, standing=standing)
    seat.around = replace(seat.around, version=Version(term, 10))
    seat.tick()
    return seat


@pytest.mark.parametrize("way", ["beat", "head", "hello", "highest", "outside"])
def test_a_higher_term_anywhere_ends_the_service_in_the_same_decision(way: str) -> None:
    """Primary 1: beat, head, hello, what others have heard of, and its own name in another life."""
    seat = primary()
    if way == "beat":
        seat.hear("m", beat("c", 1, term=4))
    elif way == "head":
        seat.head(4, 1)
    elif way == "hello":
        seat.hear("c", says=claim("c", "primary", term=4))
    elif way == "highest":
        seat.hear("c", says=claim("c", term=1, highest_term=4))
    else:
        seat.hear("m", beat("b", 1, term=4))
    assert seat.stands() is Phase.FOLLOWING
    assert not seat.election.serving
    assert seat.turns() == [Turn.OUTRANKED]


def test_a_lower_term_deposes_nobody() -> None:
    """The other side demotes."""
    seat = primary()
    seat.hear("a", beat("a", 1, term=2), says=claim("a", "primary", term=2))
    seat.hear("a", beat("a", 2, term=2), says=claim("a", "primary", term=2))
    assert seat.stands() is Phase.SERVING
    assert seat.done == []


def test_who_is_deposed_by_a_claim_follows_it_at_once() -> None:
    """Its rows are fetched without another round of probes."""
    seat = primary()
    seat.hear("c", says=claim("c", "primary", term=4))
    assert seat.election.leader is not None
    assert (seat.election.leader.host, seat.election.leader.term) == ("c", 4)


def test_of_two_primaries_in_one_term_exactly_one_gives_way() -> None:
    """The better rank goes on, in a new term that the other cannot have used."""
    better, worse = primary("a"), primary("b")
    better.hear("b", says=claim("b", "primary", term=3))
    worse.hear("a", says=claim("a", "primary", term=3))
    assert worse.stands() is Phase.FOLLOWING
    assert better.stands() is Phase.SERVING
    assert better.election.term == 4


def test_a_relayed_beat_of_a_dead_primary_deposes_nobody() -> None:
    """However new it is here: it may have waited with whoever carried it."""
    seat = primary("b")
    for number in (7, 7, 6, 8, 9):
        seat.hear("m", beat("a", number, term=3))
    assert seat.phase_and_term() == (Phase.SERVING, 3)


def test_a_duel_is_settled_through_a_relay_by_the_better_rank() -> None:
    """It takes a new term when it hears of the other, and that deposes the other on any path."""
    better, worse = primary("a"), primary("b")
    better.hear("m", beat("b", 7, term=3))
    better.hear("m", beat("b", 8, term=3))
    assert better.phase_and_term() == (Phase.SERVING, 4)
    worse.hear("m", beat("a", 8, term=4))
    assert worse.stands() is Phase.FOLLOWING


def test_a_rival_s_last_beat_deposes_nobody() -> None:
    """It is leaving by itself."""
    seat = primary("b")
    seat.hear("a", beat("a", 7, term=3))
    seat.hear("a", beat("a", 8, term=3, left=True), says=claim("a", term=3))
    assert seat.stands() is Phase.SERVING


def test_one_that_serves_does_not_wait_for_one_that_asks_around() -> None:
    """Whatever the rank: a new term settles it."""
    seat = primary("b")
    seat.hear("a", says=claim("a", "primary", term=3, serving=False))
    assert seat.stands() is Phase.SERVING
    assert seat.election.term == 4


def test_one_that_asks_around_gives_way_to_a_better_rank_and_outlasts_a_worse_one() -> None:
    """The better one goes on in a new term: both may have written rows under the same numbers."""
    standing = Standing(Phase.PENDING, 3, 3, "b", 3)
    worse = Seat("b", Phase.PENDING, standing=standing, away_ms=None)
    worse.hear("a", says=claim("a", "primary", term=3, serving=False))
    assert worse.stands() is Phase.FOLLOWING
    better = Seat("b", Phase.PENDING, standing=standing, away_ms=None)
    better.hear("c", says=claim("c", "primary", term=3))
    assert better.stands() is Phase.PENDING
    better.wait(12)
    assert better.stands() is Phase.SERVING
    assert better.election.term == 4


def test_numbers_that_may_be_used_elsewhere_stay_so_over_a_restart() -> None:
    """A broker that is back in a moment must not go on in the old term (row 53)."""
    seat = Seat("b", Phase.PENDING, standing=Standing(Phase.PENDING, 3, 3, "b", 3), away_ms=None)
    seat.hear("c", says=claim("c", "primary", term=3))
    again = Seat("b", Phase.PENDING, standing=seat.election.standing, away_ms=0)
    assert again.stands() is Phase.PENDING
    again.wait(30)
    assert again.election.term == 4


def test_a_locked_primary_steps_down_at_once() -> None:
    """Primary 2."""
    seat = primary()
    seat.unready("locked")
    seat.tick()
    assert seat.turns() == [Turn.LOCKED]


def test_the_only_key_holder_stays_primary_when_its_key_is_locked() -> None:
    """Nobody could take over, and it refuses to sign by itself."""
    seat = Seat("a", Phase.SERVING, holders="a")
    seat.unready("locked")
    seat.tick()
    assert seat.stands() is Phase.SERVING


@pytest.mark.parametrize("away_ms", [None, 15_001])
def test_a_primary_that_starts_is_pending_until_it_has_asked(away_ms: int | None) -> None:
    """Primary 3: probes, serves nothing, for 12 s."""
    seat = Seat("a", Phase.SERVING, away_ms=away_ms)
    assert seat.stands() is Phase.PENDING
    assert seat.election.role == "primary"
    assert seat.election.powers(seat.around, seat.time).startswith("pending")
    seat.wait(11)
    assert not seat.election.serving
    seat.wait(1)
    assert seat.turns() == [Turn.SETTLED]


def test_a_primary_whose_broker_is_back_in_a_moment_was_not_away() -> None:
    """Nobody can have taken over within half a grace."""
    assert Seat("a", Phase.SERVING, away_ms=14_000).stands() is Phase.SERVING


def test_a_pending_primary_serves_as_soon_as_every_other_key_holder_answered() -> None:
    """But not on the word of messages that waited in a buffer since before the pause."""
    seat = Seat("a", Phase.SERVING, away_ms=None)
    seat.hear("b", says=claim("b"))
    seat.hear("c", says=claim("c"))
    seat.wait(5)
    assert seat.stands() is Phase.PENDING
    seat.hear("b", says=claim("b"))
    seat.hear("c", says=claim("c"))
    seat.wait(1)
    assert seat.stands() is Phase.SERVING


def test_silence_is_no_answer_before_anybody_was_asked() -> None:
    """On a machine that is still starting the first probes go out late."""
    seat = Seat("a", Phase.SERVING, away_ms=None)
    for _ in range(29):
        seat.now += 1_000
        seat.tick()
    assert seat.stands() is Phase.PENDING
    seat.now += 1_000
    seat.tick()
    assert seat.stands() is Phase.SERVING


def test_a_pending_primary_that_was_replaced_becomes_a_standby() -> None:
    """Somebody shows a higher term."""
    seat = Seat("a", Phase.SERVING, away_ms=None)
    seat.hear("m", beat("b", 1, term=2))
    assert seat.turns() == [Turn.OUTRANKED]


def test_a_gap_in_its_own_ticks_makes_a_primary_ask_first() -> None:
    """SIGSTOP and suspend are the nasty cases: it believes that it still serves."""
    seat = primary()
    seat.now += 15_001
    seat.tick()
    assert seat.stands() is Phase.PENDING


def test_a_gap_within_the_fence_needs_no_questions() -> None:
    """Nobody takes over before the whole grace."""
    seat = primary()
    seat.now += 15_000
    seat.tick()
    assert seat.stands() is Phase.SERVING


def test_a_write_that_comes_before_the_first_tick_after_a_pause_is_refused() -> None:
    """Primary 6: a request in the buffer must not be served by who may be outranked.

    (row 21, P4)
    """
    seat = primary()
    assert seat.election.halted(seat.around, seat.time) == ""
    seat.now += 15_001
    assert seat.election.halted(seat.around, seat.time).startswith("pending")
    seat.hear("m")
    assert seat.stands() is Phase.PENDING


def test_a_second_pause_starts_the_questions_over() -> None:
    """The answers of the first round are as old as the pause."""
    seat = Seat("a", Phase.SERVING, away_ms=None)
    seat.wait(2)
    seat.now += 60_000
    seat.wait(11)
    assert seat.stands() is Phase.PENDING


def test_a_primary_without_other_key_holders_does_not_ask() -> None:
    """There is nobody who could have replaced it."""
    seat = Seat("a", Phase.SERVING, holders="a", away_ms=None)
    seat.tick()
    assert seat.stands() is Phase.SERVING


def test_a_primary_that_asks_around_continues_above_a_head_that_was_shown() -> None:
    """Primary 3: members never see a rollback, and no number is used twice."""
    seat = Seat("a", Phase.SERVING, away_ms=None)
    seat.head(1, 15)
    seat.wait(12)
    assert seat.election.term == 2
    assert seat.around.version > Version(1, 15)


def test_a_serving_primary_writes_nothing_under_numbers_that_were_shown() -> None:
    """And goes on in a new term when no duel has settled it within a grace."""
    seat = primary()
    seat.head(3, 15)
    assert "next numbers" in seat.election.halted(seat.around, seat.time)
    seat.wait(29)
    assert seat.election.term == 3
    seat.wait(1)
    assert seat.election.term == 4
    assert seat.election.halted(seat.around, seat.time) == ""


def test_a_restored_primary_waits_a_grace_and_serves_in_a_new_term_only() -> None:
    """Rows after the backup exist somewhere; members too get their turn to say so."""
    standing = Standing(Phase.SERVING, 3, 3, "a", 3, contested=True)
    seat = Seat("a", Phase.SERVING, standing=standing, away_ms=0)
    for _ in range(29):
        seat.hear("b", says=claim("b"))
        seat.hear("c", says=claim("c"))
        seat.wait(1)
    assert seat.stands() is Phase.PENDING
    seat.wait(1)
    assert (seat.stands(), seat.election.term) == (Phase.SERVING, 4)
    assert not seat.election.standing.contested


def test_rows_of_its_term_that_it_does_not_have_make_a_primary_take_a_new_one() -> None:
    """Otherwise whoever has them could never follow it."""
    seat = primary()
    seat.obey(seat.election.contest("c has row 12 of this term"))
    assert seat.election.term == 4
    standby = Seat("b")
    assert standby.election.contest("anything") == ()


def test_an_isolated_primary_renews_and_revokes_but_enrolls_nobody() -> None:
    """Primary 4."""
    seat = primary()
    seat.hear("m")
    assert seat.election.powers(seat.around, seat.time) == "full"
    seat.wait(31)
    assert seat.election.powers(seat.around, seat.time).startswith("isolated")
    assert seat.election.halted(seat.around, seat.time) == ""


def test_a_caretaker_gets_full_powers_when_its_peer_is_seen_as_a_standby() -> None:
    """Then it was dead or cut off, and follows now."""
    seat = primary("b", alone=True)
    seat.hear("a", says=claim("a", "primary", term=2))
    assert seat.stands() is Phase.CARETAKING
    seat.hear("a", says=claim("a", term=2))
    assert seat.turns() == [Turn.CONFIRMED]
    assert seat.election.powers(seat.around, seat.time) == "full"


def test_a_caretaker_that_takes_a_new_term_is_confirmed_by_the_next_message() -> None:
    """One word of the peer may say both: it shared the term, and it is a standby now."""
    seat = primary("a", alone=True)
    seat.hear("b", beat("b", 1, term=3))
    seat.hear("b", beat("b", 2, term=3), says=claim("b", term=3))
    assert seat.phase_and_term() == (Phase.CARETAKING, 4)
    seat.hear("b", says=claim("b", term=3))
    assert seat.stands() is Phase.SERVING


def test_an_operator_vouches_for_a_caretaker_until_somebody_is_heard() -> None:
    """From then on isolation is judged again; the word survives a restart."""
    seat = primary("b", alone=True)
    seat.election.confirm("the operator")
    assert seat.election.powers(seat.around, seat.time) == "full"
    assert seat.election.standing.vouched
    seat.hear("a", says=claim("a", term=2))
    seat.wait(31)
    assert seat.election.powers(seat.around, seat.time).startswith("isolated")


def test_a_caretaker_stays_one_over_a_restart() -> None:
    """Nothing was learned by restarting."""
    standing = primary("b", alone=True).election.standing
    seat = Seat("b", Phase.CARETAKING, standing=standing, away_ms=None)
    seat.wait(12)
    assert seat.turns() == [Turn.SETTLED_ALONE]


def test_a_planned_stop_leaves_a_standby_that_waits_for_its_successor() -> None:
    """Primary 5 and 7: it takes the role back only if nobody did within a stagger."""
    seat = primary("a")
    seat.election.left(beat("a", 9, term=3, left=True, to="b"), seat.time)
    assert seat.stands() is Phase.FOLLOWING
    seat.wait(9, company="m")
    assert not seat.promotions()
    seat.wait(1, company="m")
    assert seat.promotions()


def test_only_a_ready_standby_that_was_called_is_handed_the_role() -> None:
    """An operator's call there, the step down here."""
    seat = primary()
    seat.hear("c", says=claim("c", called=True, promotable=False))
    assert seat.handed_over() == []
    seat.hear("c", says=claim("c", called=True))
    assert seat.handed_over() == ["c"]


def test_nobody_falls_back_to_a_former_primary() -> None:
    """Primary 7: a returned better rank in an older term changes nothing (P9)."""
    seat = primary("b", term=3)
    seat.hear("a", beat("a", 1, term=1), says=claim("a", "primary", term=1))
    seat.hear("a", says=claim("a", term=1))
    seat.wait(60, company="a")
    assert seat.stands() is Phase.SERVING
    assert seat.done == []


def test_a_wall_clock_is_nowhere_to_be_seen() -> None:
    """Invariant 10: what the election is told holds no wall time at all (row 19)."""
    fields = {*Observation.__dataclass_fields__, *Seat().around.__dataclass_fields__}
    assert not {name for name in fields if "wall" in name or name.endswith("_at")}
    assert Seat().election.silent_ms(Millis(0)) == 0


def test_a_roster_admits_and_dismisses() -> None:
    """The key comes before the role and leaves with it."""
    seat = Seat("b", Phase.MEMBER)
    assert seat.election.promotable(seat.around) == "it is member"
    seat.election.admit(seat.time)
    assert seat.stands() is Phase.FOLLOWING
    seat.election.dismiss()
    assert seat.stands() is Phase.MEMBER


def test_a_member_follows_and_never_takes_over() -> None:
    """It has no key; it carries word."""
    seat = Seat("m", Phase.MEMBER)
    seat.hear("b", beat("b", 1, term=2))
    assert seat.election.leader is not None
    assert seat.election.leader.host == "b"
    seat.wait(600, company="c")
    assert seat.promotions() == []
    assert seat.stands() is Phase.MEMBER
