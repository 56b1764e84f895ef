"""A process that hung before this broker started makes no promise, and is seen all the same."""

import pytest

from broker.core.unheard import PATIENCE_MS, unheard
from broker.units import Millis
from broker.wire.supervision import ProcessLine

LONG = Millis(PATIENCE_MS)


def line(program: str = "renewal-0", state: str = "RUNNING", uptime_ms: int = LONG) -> ProcessLine:
    """Return a row of supervisord's table with pid 7."""
    return ProcessLine(program, 7, state, 0, 0, uptime_ms)


def test_a_worker_that_never_introduced_itself_is_overdue() -> None:
    """It was frozen while the broker started anew; nobody else would end it (row 5)."""
    (found,) = unheard([line()], set(), LONG)
    assert (found.instance, found.pid, found.silent_ms) == ("renewal-0", 7, PATIENCE_MS)


def test_a_worker_that_is_known_is_judged_by_its_promises() -> None:
    """Also one that has said goodbye and is about to end."""
    assert unheard([line()], {7}, LONG) == ()


def test_a_worker_that_lives_below_a_wrapper_is_known_by_its_name() -> None:
    """Its pid is not the one that supervisord started."""
    assert unheard([line()], {"renewal-0", 8}, LONG) == ()


def test_a_start_takes_its_time() -> None:
    """Of the process, and of the broker: all of them introduce themselves anew to a new one."""
    assert unheard([line(uptime_ms=PATIENCE_MS - 1)], set(), LONG) == ()
    assert unheard([line()], set(), Millis(PATIENCE_MS - 1)) == ()


@pytest.mark.parametrize("state", ["STARTING", "BACKOFF", "STOPPING", "FATAL"])
def test_who_waits_or_stops_is_left_alone(state: str) -> None:
    """A process that is held back after quick ends has not begun its work yet."""
    assert unheard([line(state=state)], set(), LONG) == ()


@pytest.mark.parametrize("program", ["broker", "my-service", "remote-renewal-0", "renewal-x"])
def test_programs_of_others_are_left_alone(program: str) -> None:
    """An operator may supervise more than this, and a remote worker has its broker elsewhere."""
    assert unheard([line(program)], set(), LONG) == ()


@pytest.mark.parametrize("program", ["gateway", "roster-sync", "renewal-11", "watchdog"])
def test_every_worker_of_this_node_is_meant(program: str) -> None:
    """Numbered ones too."""
    assert len(unheard([line(program)], set(), LONG)) == 1
