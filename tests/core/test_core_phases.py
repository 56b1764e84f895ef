"""The transition table: complete, closed, and without a way round the questions."""

import pytest

from broker.core.phases import ROLES, TRANSITIONS, Phase, Turn, turned


def test_every_phase_has_a_role_and_a_row() -> None:
    """A phase without one could be entered and never left."""
    assert set(ROLES) == set(Phase)
    assert set(TRANSITIONS) == set(Phase)


def test_every_turn_is_used() -> None:
    """A turn that is in no row is dead."""
    assert {turn for row in TRANSITIONS.values() for turn in row} == set(Turn)


def test_every_phase_can_be_reached_from_being_a_member() -> None:
    """By legal turns alone; a founder begins as a primary, which is reached too."""
    reached = {Phase.MEMBER}
    for _ in Phase:
        reached |= {after for phase in reached for after in TRANSITIONS[phase].values()}
    assert reached == set(Phase)


def test_a_turn_that_is_not_in_the_table_changes_nothing_and_is_our_bug() -> None:
    """A member that promotes, a standby that steps down."""
    for phase in Phase:
        for turn in set(Turn) - set(TRANSITIONS[phase]):
            with pytest.raises(AssertionError, match="no way from"):
                turned(phase, turn)


def test_only_a_key_holder_becomes_primary() -> None:
    """A member has to be admitted first."""
    after = {TRANSITIONS[Phase.MEMBER][turn] for turn in TRANSITIONS[Phase.MEMBER]}
    assert {ROLES[phase] for phase in after} == {"standby"}


def test_who_was_away_asks_before_it_serves() -> None:
    """From every phase that serves."""
    for phase in (Phase.SERVING, Phase.CARETAKING):
        assert TRANSITIONS[phase][Turn.AWAY] is Phase.PENDING


@pytest.mark.parametrize("turn", [Turn.OUTRANKED, Turn.LOCKED, Turn.LEFT])
def test_every_primary_can_step_down(turn: Turn) -> None:
    """Whatever it was doing."""
    for phase, role in ROLES.items():
        if role == "primary":
            assert TRANSITIONS[phase][turn] is Phase.FOLLOWING
