"""The queue of joins that wait for a person: shares, reserved places, turns; and quiet rows."""

import pytest

from broker.core.approval import (
    PENDING_MAX,
    PENDING_OF_ONE_MAX,
    RESERVED,
    check_room,
    in_turns,
)
from broker.core.quiet import Budget
from broker.errors import BusyError, ThrottledError
from broker.units import Millis


def waiting(count: int, sources: int) -> list[tuple[str, str]]:
    """Requests spread evenly over so many sources."""
    return [(f"10.0.{n % sources}.1", f"host{n}") for n in range(count)]


def test_one_source_gets_its_share_and_others_get_theirs() -> None:
    """Defect 21: a queue of eight was full of one sender."""
    own = waiting(PENDING_OF_ONE_MAX, 1)
    with pytest.raises(ThrottledError, match="8 requests from this address"):
        check_room(own, "10.0.0.1", "nas")
    check_room(own, "10.0.0.2", "nas")


def test_an_ipv6_network_is_one_source() -> None:
    """A /64 must not hold more than its share."""
    own = [(f"fd00::{n:x}", f"host{n}") for n in range(PENDING_OF_ONE_MAX)]
    with pytest.raises(ThrottledError):
        check_room(own, "fd00::ffff", "nas")


def test_the_same_host_from_the_same_address_waits_once() -> None:
    """A joiner that asks again does not fill the list."""
    with pytest.raises(ThrottledError, match="waits already"):
        check_room([("10.0.0.1", "nas")], "10.0.0.1", "nas")
    check_room([("10.0.0.1", "nas")], "10.0.0.2", "nas")


def test_the_last_places_are_for_those_who_have_none_yet() -> None:
    """Many sources with several requests each must not shut a newcomer out."""
    full = waiting(PENDING_MAX - RESERVED, 64)
    with pytest.raises(BusyError):
        check_room(full, "10.0.3.1", "nas")
    check_room(full, "192.168.1.1", "nas")
    with pytest.raises(BusyError):
        check_room(waiting(PENDING_MAX, 256), "192.168.1.1", "nas")


def test_everybodys_oldest_request_comes_first() -> None:
    """A flood stands behind the one request of everybody else."""
    flood = [("10.0.0.66", n) for n in range(8)]
    rows = [*flood, ("10.0.0.7", 100), ("10.0.0.8", 101), ("10.0.0.7", 102)]
    found = in_turns(rows, lambda row: row[0])
    assert found[:5] == [
        ("10.0.0.66", 0),
        ("10.0.0.7", 100),
        ("10.0.0.8", 101),
        ("10.0.0.66", 1),
        ("10.0.0.7", 102),
    ]
    assert sorted(found) == sorted(rows)


def test_a_budget_lets_a_burst_pass_and_then_one_in_a_while() -> None:
    """Rows about refusals are worth reading, not worth a full disk."""
    budget = Budget(burst=3, every_ms=1000)
    assert [budget.takes(Millis(5000)) for _ in range(5)] == [True, True, True, False, False]
    assert not budget.takes(Millis(5999))
    assert budget.takes(Millis(6000))
    assert sum(budget.takes(Millis(ms)) for ms in range(6000, 106_000, 10)) == 100 - 1
    assert [budget.takes(Millis(900_000)) for _ in range(4)] == [True, True, True, False]
