"""The simulation proves something: take a rule out and some seed objects."""

import pytest

from tests.sim.campaign import WHOLE, run_block
from tests.sim.mutants import MEASURED, MUTANTS, SAFETY

PATIENCE = 400
STEP = 20
MEASURED_SEEDS = 80


@pytest.mark.parametrize("name", [mutant.name for mutant in SAFETY])
def test_a_mesh_without_the_rule_is_caught(name: str) -> None:
    """As long as this passes, the rule is there because something needs it."""
    begin = MUTANTS[name].first
    for first in range(begin, begin + PATIENCE, STEP):
        if run_block(name, range(first, first + STEP)).objections:
            return
    pytest.fail(f"{PATIENCE} seeds do not miss {name}")


@pytest.mark.parametrize("name", [mutant.name for mutant in MEASURED])
def test_a_mesh_without_the_rule_has_two_primaries_for_longer(name: str) -> None:
    """These rules cost availability, not safety, when they are missing."""
    seeds = range(MEASURED_SEEDS)
    assert run_block(name, seeds).share > run_block(name + WHOLE, seeds).share
