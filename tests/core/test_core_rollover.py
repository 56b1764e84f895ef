"""The phases of a rollover, and who holds a step back: plain values."""

from itertools import product

import pytest

from broker.core.adoption import Orphan
from broker.core.rollover import (
    MOVES,
    Anchors,
    MemberTrust,
    Step,
    check_finish,
    conflicts,
    follow,
    is_behind,
    live_s,
    next_phase,
    survey,
)
from broker.errors import ConflictError
from broker.units import UnixSeconds
from broker.wire.facts import AnyFact, Origin, RolloverAborted, RolloverFinished, RolloverStarted
from broker.wire.rollover import Phase

NOW = UnixSeconds(1_000_000)
OLD, NEW, OTHER = "0a" * 32, "0b" * 32, "0c" * 32
PHASES: tuple[Phase, ...] = ("none", "trusting", "switched")


def member(host: str, heard_s: int | None, *, ready: bool) -> MemberTrust:
    """Return a member heard so many seconds ago."""
    heard_at = None if heard_s is None else UnixSeconds(NOW - heard_s)
    return MemberTrust(host, heard_at, ready)


def younger(first: bytes, second: bytes) -> bool:
    """Roots of these tests are numbers: the higher one is the younger."""
    return first > second


def test_every_move_is_in_the_table_and_any_other_is_refused_with_a_way_out() -> None:
    """An operator who is refused reads what to do."""
    for phase, step in product(PHASES, Step):
        if (phase, step) in MOVES:
            assert next_phase(phase, step) == MOVES[phase, step]
            continue
        with pytest.raises(ConflictError) as refused:
            next_phase(phase, step)
        assert refused.value.hint


def test_a_ca_that_signs_cannot_be_aborted() -> None:
    """Its certificates are in use."""
    assert ("switched", Step.ABORT) not in MOVES


def test_a_member_counts_as_ready_however_long_it_is_silent() -> None:
    """It said that it trusts the next root: it will when it wakes."""
    found = survey([member("pi", 10_000, ready=True)], NOW, 60)
    assert (found.ready, found.lacking, found.away, found.members) == (1, (), (), 1)


def test_who_is_silent_is_away_and_who_speaks_is_lacking() -> None:
    """A laptop in a bag must not hold the mesh back for weeks; a member that is here must."""
    members = [
        member("pi", 5, ready=False),
        member("ant", 61, ready=False),
        member("bee", None, ready=False),
        member("cow", 60, ready=False),
    ]
    found = survey(members, NOW, 60)
    assert (found.lacking, found.away) == (("cow", "pi"), ("ant", "bee"))


def test_a_large_mesh_is_given_the_time_that_it_beats_in() -> None:
    """Ten thousand members beat every ten seconds or less often; three beats are to be missed."""
    assert live_s(1_000) == 60
    assert live_s(100_000) == 300


def test_finish_names_everybody_who_holds_it_back_at_once() -> None:
    """Collected, not one per attempt."""
    found = survey([member("pi", 5, ready=False), member("ant", 5, ready=False)], NOW, 60)
    with pytest.raises(ConflictError) as refused:
        check_finish(found, ("borea",))
    assert refused.value.detail == (
        "ant, pi do not trust the next root yet; standby borea lacks the next key"
    )


def test_a_refusal_names_ten_hosts_at_the_most() -> None:
    """A thousand names are no sentence."""
    found = survey([member(f"m{n:03}", 5, ready=False) for n in range(12)], NOW, 60)
    with pytest.raises(ConflictError, match="m009 and 2 more do not"):
        check_finish(found, ())


def test_members_that_are_away_do_not_hold_a_finish_back() -> None:
    """They come by the last words of the old CA."""
    check_finish(survey([member("pi", 999, ready=False)], NOW, 60), ())


def test_trust_moves_to_a_younger_root() -> None:
    """That is the switch, seen from a member."""
    held, told = Anchors(b"1", (b"2",)), Anchors(b"2", (b"1",))
    assert follow(held, told, younger) == told


def test_trust_never_moves_back_to_an_older_root() -> None:
    """The retiring key may be the stolen one."""
    held = Anchors(b"2", (b"1",))
    assert follow(held, Anchors(b"1"), younger) == held
    assert follow(held, Anchors(b"1", (b"3",)), younger) == held


def test_the_pinned_ca_says_what_to_trust_besides() -> None:
    """Announced, aborted, retired: all of it comes in bundles of the CA in force."""
    for others in ((), (b"2",), (b"3",)):
        told = Anchors(b"1", others)
        assert follow(Anchors(b"1", (b"2",)), told, younger) == told


@pytest.mark.parametrize(
    ("chain", "trusted", "left", "behind"),
    [
        ((), (OLD,), (), False),
        ((OLD,), (OLD,), (), False),
        ((OLD,), (OLD, NEW), (), True),
        ((OLD, NEW), (OLD, NEW), (), False),
        ((OLD, NEW), (NEW, OLD), (OLD,), True),
        ((NEW, OLD), (NEW, OLD), (OLD,), False),
        ((NEW, OLD), (OLD, NEW), (), False),
        ((NEW, OLD), (NEW,), (), True),
        ((OLD, NEW), (OLD,), (), True),
    ],
)
def test_a_certificate_is_behind_when_its_chain_file_is_not_what_the_node_trusts(
    chain: tuple[str, ...], trusted: tuple[str, ...], left: tuple[str, ...], *, behind: bool
) -> None:
    """A leaf of the next CA that came early is fine; one of a CA that was left is not."""
    assert is_behind(chain, trusted, frozenset(left)) is behind


def orphan(fact: AnyFact, row: int = 7) -> Orphan:
    """Return a fact of another journal."""
    origin = Origin(
        term=3,
        sequence=row,
        node="borea",
        incarnation="ee",
        at=NOW,
        actor="ann",
        hash=f"{row:064x}",
    )
    return Orphan.from_fact(origin, fact)


def announced(pin: str) -> RolloverStarted:
    """Return the announcement of a CA."""
    return RolloverStarted(b"root", b"issuing", pin, OLD, b"r", b"i", b"n", b"c")


def test_a_second_next_ca_from_across_a_partition_is_listed_for_a_person() -> None:
    """One of the two is dropped, and whoever started it should know."""
    (found,) = conflicts([orphan(announced(NEW))], lambda _pin: None, OTHER)
    assert (found.rule, found.subject) == ("rollover", NEW)
    assert "borea in term 3, row 7" in found.lost


def test_a_rollover_that_comes_home_alone_is_no_conflict() -> None:
    """It is taken over as it is, all of its steps."""
    steps = [orphan(announced(NEW), 7), orphan(RolloverFinished(NEW, OLD), 8)]
    assert not list(conflicts(steps, lambda _pin: None, ""))


def test_a_switch_to_a_ca_that_was_aborted_here_is_listed() -> None:
    """Here the old CA stays; there certificates of the other one are in use."""
    steps = [orphan(RolloverFinished(NEW, OLD))]
    (found,) = conflicts(steps, lambda _pin: "aborted", "")
    assert found.kept == "here: aborted"


def test_a_switch_that_happened_on_both_sides_is_no_conflict() -> None:
    """Both operators did the same."""
    steps = [orphan(RolloverFinished(NEW, OLD))]
    assert not list(conflicts(steps, lambda _pin: "switched", NEW))
    assert not list(conflicts(steps, lambda _pin: "retired", ""))


def test_other_facts_are_of_no_interest() -> None:
    """An abort that does not fit is ignored without a word: the rollover goes on."""
    assert not list(conflicts([orphan(RolloverAborted(NEW))], lambda _pin: "switched", NEW))
