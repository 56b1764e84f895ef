"""Whole meshes from 500 seeds, in blocks so that several processes share them."""

import pytest

from tests.sim.campaign import BLOCK, run_block

SEEDS = 500


@pytest.mark.parametrize("first", range(0, SEEDS, BLOCK))
def test_no_schedule_of_faults_breaks_an_invariant(first: int) -> None:
    """Crashes, pauses, cuts, loss, locked keys, old backups: the oracle objects to nothing.

    (rows 30, 31, P9)
    """
    found = run_block("", range(first, first + BLOCK))
    assert found.objections == [], found.objections[0][1]
    assert found.virtual_ms > BLOCK * 200_000


def test_a_seed_is_the_whole_schedule() -> None:
    """A failure that cannot be repeated cannot be mended."""
    one, other = run_block("", range(7, 12)), run_block("", range(7, 12))
    assert (one.double_ms, one.virtual_ms) == (other.double_ms, other.virtual_ms)
