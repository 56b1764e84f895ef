"""A standby: what counts as life, how long it waits, and why it holds back."""

from dataclasses import replace

import pytest

from broker.core.observation import Rules, Standing, Version
from broker.core.phases import Phase, Turn
from tests.core.succession import RULES, TIMING, Seat, beat, claim


def test_an_advancing_beat_of_the_highest_term_starts_absence_over() -> None:
    """Standby 1: whoever carries it, it proves that the primary lived a moment ago."""
    seat = Seat()
    seat.hear("m", beat("a", 1))
    seat.wait(20, company="m")
    seat.hear("m", beat("a", 2))
    assert seat.election.silent_ms(seat.time) == 0


def test_a_beat_that_is_merely_known_or_replayed_proves_nothing() -> None:
    """Otherwise anybody with an old recording keeps a dead primary alive."""
    seat = Seat()
    seat.hear("m", beat("a", 5))
    seat.hear("m", beat("a", 6))
    seat.wait(20, company="m")
    seat.hear("m", beat("a", 6))
    seat.hear("m", beat("a", 5))
    assert seat.election.silent_ms(seat.time) == 20_000


def test_the_first_beat_seen_in_a_known_term_may_be_of_any_age() -> None:
    """Only the second one advances."""
    seat = Seat()
    seat.wait(20, company="m")
    seat.hear("m", beat("a", 5))
    assert seat.election.silent_ms(seat.time) == 20_000


def test_the_first_beat_of_a_higher_term_is_news() -> None:
    """It was signed after a promotion that this node had not heard of."""
    seat = Seat()
    seat.wait(20, company="m")
    seat.hear("m", beat("c", 1, term=2))
    assert seat.election.silent_ms(seat.time) == 0
    assert seat.election.leader is not None
    assert seat.election.leader.host == "c"


def test_a_beat_of_an_outranked_term_is_no_life() -> None:
    """Whoever still beats in an old term has been replaced and does not know it."""
    seat = Seat(standing=Standing(Phase.FOLLOWING, 0, 2, "c", 2))
    seat.hear("m", beat("a", 1))
    seat.wait(20, company="m")
    seat.hear("m", beat("a", 2))
    assert seat.election.silent_ms(seat.time) == 20_000


def test_known_beats_survive_a_restart() -> None:
    """Or every recorded beat would look new to a restarted broker."""
    before = Seat()
    before.hear("m", beat("a", 7))
    before.hear("m", beat("a", 8))
    after = Seat(standing=before.election.standing)
    after.wait(20, company="m")
    after.hear("m", beat("a", 7))
    after.hear("m", beat("a", 8))
    assert after.election.silent_ms(after.time) == 20_000


def test_a_serving_primary_s_own_claim_proves_its_life() -> None:
    """It was made just now, over mutual TLS."""
    seat = Seat()
    seat.wait(20, company="m")
    seat.hear("a", says=claim("a", "primary"))
    assert seat.election.silent_ms(seat.time) == 0


def test_a_claim_that_its_own_last_beat_has_overtaken_is_old() -> None:
    """A message that was late must not undo a farewell."""
    seat = Seat()
    seat.hear("a", beat("a", 1))
    seat.hear("a", beat("a", 2, left=True, to="b"))
    seat.hear("a", says=claim("a", "primary"))
    seat.tick()
    assert [wanted.cause for wanted in seat.promotions()] == ["handover"]


def test_three_silent_ticks_are_a_suspicion_and_life_ends_it() -> None:
    """Standby 2: visible, nothing more."""
    seat = Seat()
    seat.hear("a", says=claim("a", "primary"))
    seat.wait(14)
    assert seat.stands() is Phase.FOLLOWING
    seat.wait(1)
    assert seat.stands() is Phase.SUSPECTING
    seat.hear("a", says=claim("a", "primary"))
    assert seat.turns() == [Turn.SILENCE, Turn.LIFE]


def test_a_signed_last_beat_skips_the_grace() -> None:
    """Standby 1: a planned stop costs seconds."""
    seat = Seat()
    seat.hear("a", beat("a", 1))
    seat.hear("a", beat("a", 2, left=True))
    seat.tick()
    assert [wanted.term for wanted in seat.promotions()] == [2]


def test_a_last_beat_names_who_goes_first() -> None:
    """The others give the successor one stagger."""
    chosen, other = Seat("c"), Seat("b")
    for seat in (chosen, other):
        seat.hear("a", beat("a", 1))
        seat.hear("a", beat("a", 2, left=True, to="c"))
        seat.tick()
    assert chosen.promotions()
    assert not other.promotions()
    other.wait(10, company="m")
    assert other.promotions()


def test_a_last_beat_speaks_for_its_own_term_alone() -> None:
    """Who took over after it has not left, and gets the whole grace."""
    seat = Seat("b")
    seat.hear("a", beat("a", 1))
    seat.hear("a", beat("a", 2, left=True))
    seat.hear("c", says=claim("c", highest_term=2))
    seat.wait(29, company="m")
    assert not seat.promotions()


def test_a_called_standby_that_is_named_in_a_last_beat_takes_over_at_once() -> None:
    """The operator's call must not be slower than no call."""
    seat = Seat()
    seat.hear("a", beat("a", 1))
    seat.election.call(seat.time)
    seat.hear("a", beat("a", 2, left=True, to="b"))
    seat.tick()
    assert seat.promotions()


def test_the_first_standby_takes_over_after_the_grace() -> None:
    """Standby 3; `before` does not count the primary that is gone."""
    seat = Seat("b")
    seat.hear("a", says=claim("a", "primary"))
    seat.wait(29, company="m")
    assert not seat.promotions()
    seat.wait(1, company="m")
    assert [wanted.cause for wanted in seat.promotions()] == ["silence"]


def test_each_better_standby_costs_one_stagger() -> None:
    """A dead one blocks nobody for ever."""
    seat = Seat("c")
    seat.hear("a", says=claim("a", "primary"))
    seat.wait(39, company="m")
    assert not seat.promotions()
    seat.wait(1, company="m")
    assert seat.promotions()


def test_a_standby_that_excused_itself_costs_nothing() -> None:
    """Locked, lagging, clock: it said so within the last grace period."""
    seat = Seat("c")
    seat.hear("a", says=claim("a", "primary"))
    seat.wait(10, company="m")
    seat.hear("b", says=claim("b", promotable=False))
    seat.wait(20, company="m")
    assert seat.promotions()


def test_an_excuse_ends_with_a_word_to_the_contrary() -> None:
    """Unlocked again, it is waited for again."""
    seat = Seat("c")
    seat.hear("a", says=claim("a", "primary"))
    seat.wait(10, company="m")
    seat.hear("b", says=claim("b", promotable=False))
    seat.hear("b", says=claim("b"))
    seat.wait(29, company="m")
    assert not seat.promotions()


@pytest.mark.parametrize("why", ["locked", "the clock is 90 s off", "the ledger is damaged"])
def test_a_standby_that_is_not_ready_holds_back_and_says_why(why: str) -> None:
    """Standby 4: locked, clock, ledger."""
    seat = Seat()
    seat.unready(why)
    seat.wait(120, company="m")
    assert not seat.promotions()
    assert seat.withheld() == {why}
    assert seat.election.promotable(seat.around) == why


def test_a_standby_behind_the_highest_head_anybody_showed_holds_back() -> None:
    """What was shown may have been acted on."""
    seat = Seat()
    seat.head(1, 11)
    seat.head(1, 9)
    seat.wait(60, company="m")
    assert not seat.promotions()
    assert seat.withheld() == {"lagging: row 10 of 11"}
    seat.around = replace(seat.around, version=Version(1, 11))
    seat.wait(1, company="m")
    assert seat.promotions()


def test_the_highest_head_and_term_survive_a_restart() -> None:
    """A node never goes back behind what it has verified."""
    seat = Seat()
    seat.head(1, 99)
    seat.hear("c", says=claim("c", highest_term=7))
    again = Seat(standing=seat.election.standing)
    assert again.election.highest_head == Version(1, 99)
    assert again.election.highest_term == 7


def test_beats_of_many_primaries_are_forgotten_from_the_oldest_term_on() -> None:
    """No word of others makes a node grow."""
    seat = Seat()
    for term in range(1, 20):
        seat.hear("m", beat(f"host-{term:02}", 1, term=term))
    assert sorted(seat.election.beats) == [f"host-{term:02}" for term in range(12, 20)]


def test_an_isolated_standby_holds_back() -> None:
    """If I hear nobody, it is I who am cut off."""
    seat = Seat()
    seat.wait(300)
    assert not seat.promotions()
    assert any(why.startswith("isolated") for why in seat.withheld())
    seat.hear("m")
    seat.tick()
    assert seat.promotions()


def test_company_that_fell_silent_with_the_primary_is_no_company() -> None:
    """Whoever is cut off hears everybody for the last time at about the same moment."""
    seat = Seat()
    seat.hear("a", says=claim("a", "primary"))
    seat.wait(12, company="m")
    seat.wait(19)
    assert not seat.promotions()
    assert any(why.startswith("isolated") for why in seat.withheld())


def test_after_a_gap_in_its_own_ticks_a_standby_waits_half_a_grace_again() -> None:
    """It was away, not the primary."""
    seat = Seat()
    seat.wait(1, company="m")
    seat.now += 600_000
    seat.hear("m")
    seat.tick()
    seat.wait(14, company="m")
    assert not seat.promotions()
    seat.wait(1, company="m")
    assert seat.promotions()


def test_a_pause_makes_a_last_beat_old() -> None:
    """Somebody else may have taken over meanwhile."""
    seat = Seat()
    seat.hear("a", beat("a", 1))
    seat.hear("a", beat("a", 2, left=True, to="b"))
    seat.now += 600_000
    seat.hear("m")
    seat.tick()
    assert not seat.promotions()


def test_a_promotion_takes_the_term_above_all_that_were_heard_of() -> None:
    """Standby 5: also of those that rows of its own journal name."""
    seat = Seat()
    seat.hear("c", says=claim("c", highest_term=7))
    seat.around = replace(seat.around, version=Version(9, 10))
    seat.wait(40, company="m")
    assert [wanted.term for wanted in seat.promotions()] == [10]
    assert seat.election.term == 10
    assert "no beat of a for" in seat.promotions()[0].evidence


def test_witnessed_mode_wants_members_to_confirm_the_silence() -> None:
    """Another key holder is no witness."""
    seat = Seat(rules=Rules(TIMING, mode="witnessed", witnesses=1))
    seat.wait(60, company="c")
    assert not seat.promotions()
    assert seat.withheld() == {"0 of 1 witnesses"}
    seat.hear("m")
    seat.tick()
    assert seat.promotions()


def test_manual_mode_only_suspects_and_alerts() -> None:
    """Also after a planned stop, unless this node is the one that was named."""
    seat = Seat(rules=Rules(TIMING, mode="manual"))
    seat.hear("a", beat("a", 1))
    seat.hear("a", beat("a", 2, left=True))
    seat.wait(300, company="m")
    assert seat.stands() is Phase.SUSPECTING
    assert seat.withheld() == {"failover.mode is manual"}
    seat.election.call(seat.time)
    seat.tick()
    assert [wanted.cause for wanted in seat.promotions()] == ["operator"]


def test_half_of_a_pair_becomes_a_caretaker() -> None:
    """It cannot tell a dead peer from a cut cable."""
    seat = Seat(holders="ab", members=0)
    seat.wait(30)
    assert [wanted.caretaker for wanted in seat.promotions()] == [True]
    assert seat.stands() is Phase.CARETAKING
    assert seat.election.serving
    assert seat.election.powers(seat.around, seat.time).startswith("caretaker")


@pytest.mark.parametrize(("choice", "phase"), [("wait", "suspecting"), ("take-over", "serving")])
def test_an_operator_chooses_what_half_of_a_pair_does(choice: str, phase: str) -> None:
    """`failover.lone_pair`."""
    rules = replace(RULES, lone_pair=choice)  # type: ignore[arg-type]  # both are allowed
    seat = Seat(holders="ab", members=0, rules=rules)
    seat.wait(60)
    assert seat.stands() == phase


def test_a_called_standby_replaces_a_silent_primary_but_not_a_living_one() -> None:
    """The living one is asked to hand over."""
    seat = Seat()
    seat.hear("a", says=claim("a", "primary"))
    seat.election.call(seat.time)
    seat.wait(14, company="m")
    assert not seat.promotions()
    seat.wait(1, company="m")
    assert [wanted.cause for wanted in seat.promotions()] == ["operator"]


def test_force_overrides_everything_but_a_locked_key() -> None:
    """The last way out when only a destroyed node had the newest rows."""
    seat = Seat()
    seat.head(1, 99)
    seat.unready("locked")
    seat.election.call(seat.time, force=True)
    seat.tick()
    assert not seat.promotions()
    seat.unready("")
    seat.tick()
    assert seat.promotions()


def test_of_two_leaders_in_one_term_the_better_rank_is_followed_while_it_lives() -> None:
    """Whoever is left of a duel must not be ignored for the sake of the dead."""
    seat = Seat("d", holders="abcd")
    seat.hear("b", says=claim("b", "primary", term=2))
    seat.hear("c", says=claim("c", "primary", term=2))
    assert seat.election.leader is not None
    assert seat.election.leader.host == "b"
    for _ in range(4):
        seat.wait(5)
        seat.hear("c", says=claim("c", "primary", term=2))
    assert seat.election.leader.host == "c"
