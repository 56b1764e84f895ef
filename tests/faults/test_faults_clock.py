"""A real node whose wall clock is set wrong and right again while it runs, from outside."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.clock import boottime_ms
from broker.core.clockwatch import SETTLING_MS
from tests.faults.injectors.clock import DAY_S, HOUR_S
from tests.faults.pool import Pool
from tests.faults.shim.build import Clock, needs_compiler
from tests.support import eventually

PORT = 33_100
pytestmark = [
    pytest.mark.faults,
    pytest.mark.mesh,
    pytest.mark.timeout(240),
    needs_compiler,
    pytest.mark.skipif(boottime_ms() < SETTLING_MS, reason="this machine has just started"),
]


@pytest.fixture(scope="module")
def clocked() -> Iterator[tuple[Pool, Clock]]:
    """A running node with two names joined to it, and its clock."""
    with tempfile.TemporaryDirectory(prefix="cmk-", dir="/tmp") as place:
        clock = Clock(Path(place))
        pool = Pool.create(PORT, environment=clock.environment())
        try:
            pool.certmesh("up")
            eventually(pool.is_ok, within_s=60)
            yield pool, clock
        finally:
            pool.remove()


def _certificates(pool: Pool) -> int:
    rows = pool.certmesh("audit", "show", "--limit", "200")["rows"]
    return sum(1 for row in rows if row["event"] in {"certificate.issued", "certificate.renewed"})


def _warnings(pool: Pool) -> str:
    return pool.run("status").stdout


def test_an_absurd_clock_issues_nothing_and_the_right_one_goes_on(
    clocked: tuple[Pool, Clock],
) -> None:
    """No certificate of another year, no storm of renewals, no process that ends.

    There and back and there again, as a machine does whose time source is broken. (rows 19, 20,
    P13)
    """
    pool, clock = clocked
    pids, issued = pool.pids(), _certificates(pool)
    for days in (400, -365, 400):
        clock.set(days * DAY_S * 1000)
        eventually(lambda: "so nothing is issued or renewed" in _warnings(pool), within_s=30)
        refused = pool.run("cert", "renew")
        assert refused.returncode != 0, refused.stdout
        assert "Traceback" not in refused.stderr + pool.log("broker")
    clock.set(0)
    eventually(pool.is_ok, within_s=60)
    assert _certificates(pool) == issued
    assert pool.pids() == pids


@pytest.mark.parametrize("seconds", [HOUR_S, -2 * HOUR_S])
def test_an_hour_more_or_less_is_told_and_stops_nothing(
    clocked: tuple[Pool, Clock], seconds: int
) -> None:
    """Most wrong clocks are wrong by hours: a summer time set by hand (rows 19, 20, P13)."""
    pool, clock = clocked
    pids = pool.pids()
    clock.set(seconds * 1000)
    eventually(lambda: "this machine's clock may be wrong" in _warnings(pool), within_s=30)
    assert "so nothing is issued" not in _warnings(pool)
    clock.set(0)
    eventually(pool.is_ok, within_s=60)
    assert pool.pids() == pids
