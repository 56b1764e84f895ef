"""A loop runs for months: what it keeps of a peer goes with the peer."""

import pytest

from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.ids import Service
from tests.churn.census import grown
from tests.churn.rounds import LOOPS, track
from tests.churn.verdict import unmeant

WARM, ROUNDS = 30, 120
SLACK = 6
"""A session or thread that is between two lives when it is counted."""
BLOCKS_PER_ROUND = 4
"""Less than one small object: the log lines that pytest keeps cost more, so it drops them here."""


@pytest.mark.parametrize("service", LOOPS, ids=lambda service: service.value)
def test_a_loop_holds_no_more_after_many_rounds(
    service: Service, paths: Paths, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Peers with ever new names come and go; tables, descriptors and threads stay."""
    caplog.set_level("CRITICAL", "certmesh")
    with track(service, paths, settings) as on:
        before = on.run(WARM)
        caplog.clear()
        after = on.run(ROUNDS)
    assert unmeant(grown(before.tables, after.tables, share=0, slack=SLACK)) == {}
    assert after.descriptors <= before.descriptors + SLACK
    assert after.threads <= before.threads + SLACK
    assert after.blocks <= before.blocks + ROUNDS * BLOCKS_PER_ROUND
