"""Every request that changes something: killed in the middle, asked again with the same id."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.shell.dispatch import REMEMBERED
from broker.wire.base import Request
from broker.wire.control import Fault
from broker.wire.notice import SendTestNotice
from broker.wire.renewal import RenewExpired
from broker.wire.replica import AdoptRows, ReportReady
from broker.wire.standby import CloseReview, PromoteHere, StepDown
from tests.faults.crash import Lab
from tests.faults.lone import Nursery
from tests.faults.verb_run import POINTS, run_case, verdict
from tests.faults.verb_table import CASES, Stage, prepared

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]
ELSEWHERE = {
    RenewExpired,  # needs a certificate that has run out: test_faults_expired
    SendTestNotice,  # needs a target: test_faults_notify
    AdoptRows,  # the next five need a second key holder or a fork: tests/lab and tests/shell
    ReportReady,
    PromoteHere,
    StepDown,
    CloseReview,
}
LATE = "commit.after"
"""Durable, and nobody was told: where a second effect would come from."""


@dataclass(frozen=True)
class Bench:
    """A nursery and a mesh of which every case gets a copy."""

    lab: Lab
    stage: Stage


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """Prepare the mesh once; the path is short, because of the sockets in it."""
    with tempfile.TemporaryDirectory(prefix="cmv-", dir="/tmp") as place, Nursery() as nursery:
        stage = Path(place) / "s"
        stage.mkdir(mode=0o700)
        yield Bench(Lab(nursery), prepared(stage))


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_a_request_that_is_cut_short_has_one_effect_and_one_answer(
    bench: Bench, kind: type[Request]
) -> None:
    """Nobody knows whether a lost answer was a lost request: asking again is safe (row 2) (P2)."""
    case = CASES[kind]
    control = run_case(bench.lab, bench.stage, case, "")
    assert control.first is not None
    assert not isinstance(control.first.reply, Fault), "a request that is refused shows nothing"
    assert verdict(case, control, control) == ""
    earlier = [point for point in POINTS if point != LATE]
    for point in (LATE, earlier[[*CASES].index(kind) % len(earlier)]):
        outcome = run_case(bench.lab, bench.stage, case, point)
        assert verdict(case, control, outcome) == "", point


def test_no_request_with_a_memory_is_forgotten_by_the_table() -> None:
    """A new verb has to be killed too."""
    assert REMEMBERED - CASES.keys() - ELSEWHERE == frozenset()
