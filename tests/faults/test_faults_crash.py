"""A broker under load that is killed again and again keeps every word it gave."""

import pytest

from tests.faults.crash import Lab, campaign
from tests.faults.lone import Nursery

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]
KILLS = 50


def test_a_broker_that_is_killed_at_random_and_at_named_points_loses_and_doubles_nothing() -> None:
    """After each death: chain, projections, acknowledged facts, one answer per id.

    `python -m tests.faults.crash --kills 500` does more of the same (row 1) (row 2) (P1) (P2) (P6).
    """
    with Nursery() as nursery:
        toll = campaign(KILLS, 1, Lab(nursery))
    assert toll.broken == []
    assert sum(toll.deaths.values()) == KILLS
    assert toll.kept > KILLS
    assert len(toll.deaths) > KILLS // 4, "few named points were reached"
