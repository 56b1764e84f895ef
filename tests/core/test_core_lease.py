"""Leases: one holder at a time, numbers that only grow."""

import pytest

from broker.core.lease import BOOT_SHIFT, LeaseTable
from broker.errors import LeaseLostError
from broker.units import Millis
from broker.wire.work import Rekey

ITEM = Rekey("nas")


def at(ms: int) -> Millis:
    """Return a moment."""
    return Millis(ms)


def test_a_lease_ends_when_its_time_is_over() -> None:
    """A worker that froze must not act on what others hold now."""
    table = LeaseTable(1)
    lease = table.grant("nas", ITEM, b"w1", now_ms=at(0), ttl_ms=100)
    assert table.live(lease.lease_id, b"w1", at(99)) == lease
    with pytest.raises(LeaseLostError):
        table.live(lease.lease_id, b"w1", at(100))


def test_a_stale_number_cannot_complete_what_another_worker_took_over() -> None:
    """The fencing number is checked where the write happens."""
    table = LeaseTable(1)
    old = table.grant("nas", ITEM, b"w1", now_ms=at(0), ttl_ms=100)
    assert table.expired(at(100)) == (old,)
    new = table.grant("nas", ITEM, b"w2", now_ms=at(100), ttl_ms=100)
    assert new.lease_id > old.lease_id
    with pytest.raises(LeaseLostError):
        table.end(old.lease_id, b"w1", at(101))
    assert table.end(new.lease_id, b"w2", at(101)) == new


def test_a_number_is_worthless_in_other_hands() -> None:
    """Knowing a number is not holding the lease."""
    table = LeaseTable(1)
    lease = table.grant("nas", ITEM, b"w1", now_ms=at(0), ttl_ms=100)
    with pytest.raises(LeaseLostError):
        table.end(lease.lease_id, b"w2", at(1))


def test_numbers_grow_over_restarts() -> None:
    """A number of an earlier broker lifetime can never come to life again."""
    before = LeaseTable(7).grant("nas", ITEM, b"w1", now_ms=at(0), ttl_ms=1)
    after = LeaseTable(8).grant("nas", ITEM, b"w1", now_ms=at(0), ttl_ms=1)
    assert after.lease_id > before.lease_id + (1 << (BOOT_SHIFT - 1))


def test_extending_moves_the_end() -> None:
    """A slow hook is no reason to lose the work."""
    table = LeaseTable(1)
    lease = table.grant("nas", ITEM, b"w1", now_ms=at(0), ttl_ms=100)
    table.extend(lease.lease_id, b"w1", now_ms=at(90), ttl_ms=100)
    assert table.live(lease.lease_id, b"w1", at(150)).expires_ms == 190


def test_a_lost_worker_loses_only_its_own_leases() -> None:
    """Others go on."""
    table = LeaseTable(1)
    mine = table.grant("nas", ITEM, b"w1", now_ms=at(0), ttl_ms=100)
    other = table.grant("pi", ITEM, b"w2", now_ms=at(0), ttl_ms=100)
    assert table.lost_with(b"w1") == (mine,)
    assert not table.is_held("nas")
    assert table.live(other.lease_id, b"w2", at(1)) == other
    assert len(table) == 1
