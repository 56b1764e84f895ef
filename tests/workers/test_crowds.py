"""Room at a door, shared by crowds; rates by source; complaints at a bounded rate."""

import random
from dataclasses import dataclass

import pytest

from workers.complaints import EVERY_S, OTHERS, SOURCES_MAX, Complaints
from workers.crowds import Crowds
from workers.rates import Buckets


@dataclass(eq=False)
class Seat:
    """A connection in one of its states."""

    is_waiting: bool = False
    is_idle: bool = True


def filled(crowds: Crowds[Seat], crowd: str, count: int) -> list[Seat]:
    """Let `count` idle connections of `crowd` in."""
    seats = [Seat() for _ in range(count)]
    for seat in seats:
        crowds.enter(crowd, seat)
    return seats


def test_a_newcomer_gets_the_oldest_idle_place_of_the_largest_crowd() -> None:
    """Many connections of one address never keep another address out (row 35)."""
    crowds: Crowds[Seat] = Crowds(4, 5)
    filled(crowds, "one", 1)
    many = filled(crowds, "many", 4)
    assert crowds.is_full
    assert crowds.who_goes("new") is many[0]


def test_who_has_proved_nothing_goes_before_who_has() -> None:
    """A member's connection is worth more than somebody's handshake."""
    crowds: Crowds[Seat] = Crowds(4, 3)
    filled(crowds, "many", 2)
    waiting = Seat(is_waiting=True, is_idle=False)
    crowds.enter("many", waiting)
    assert crowds.who_goes("new") is waiting


def test_who_is_being_answered_stays() -> None:
    """An answer under way may be a certificate."""
    crowds: Crowds[Seat] = Crowds(4, 2)
    for _ in range(2):
        crowds.enter("many", Seat(is_idle=False))
    assert crowds.who_goes("new") is None


def test_equals_do_not_push_each_other_out() -> None:
    """Or two crowds would take turns for ever and nobody would be served."""
    crowds: Crowds[Seat] = Crowds(4, 4)
    filled(crowds, "left", 2)
    filled(crowds, "right", 2)
    assert crowds.who_goes("left") is None
    assert crowds.who_goes("new") is not None


def test_counting_out_twice_counts_once() -> None:
    """The place of somebody who is there would be given away otherwise."""
    crowds: Crowds[Seat] = Crowds(4, 4)
    seat, other = filled(crowds, "one", 2)
    crowds.leave("one", seat)
    crowds.leave("one", seat)
    assert (crowds.count, crowds.held("one")) == (1, 1)
    crowds.leave("one", other)
    crowds.leave("gone", other)
    assert (crowds.count, crowds.held("one")) == (0, 0)


@pytest.mark.parametrize("seed", range(20))
def test_whoever_comes_and_goes_the_bounds_and_the_count_hold(seed: int) -> None:
    """The rules over random visits: never over the cap, and whoever has less gets in."""
    draw = random.Random(seed)
    crowds: Crowds[Seat] = Crowds(6, 16)
    inside: list[tuple[str, Seat]] = []
    for step in range(400):
        crowd = f"c{draw.randrange(5)}" if step % 7 else f"lone{step % 3}"
        if crowds.is_full:
            leaver = crowds.who_goes(crowd)
            most = max(crowds.held(name) for name, _ in inside)
            assert (leaver is not None) == (most >= crowds.held(crowd) + 2), f"{seed=} {step=}"
            gone = [pair for pair in inside if pair[1] is leaver]
            for pair in gone:
                crowds.leave(*pair)
                inside.remove(pair)
        if crowds.has_share(crowd) and not crowds.is_full:
            seat = Seat()
            crowds.enter(crowd, seat)
            inside.append((crowd, seat))
        if inside and draw.random() < 0.3:
            crowds.leave(*inside.pop(draw.randrange(len(inside))))
        assert crowds.count == len(inside) <= 16
        assert max(crowds.held(name) for name, _ in inside) <= 6 if inside else True


def test_a_bucket_gives_its_burst_then_its_rate() -> None:
    """A node that comes back after a cut is served at once; a flood is not."""
    buckets = Buckets(10.0, 3)
    assert [buckets.wait_s("a", 0.0) for _ in range(3)] == [0.0] * 3
    assert buckets.wait_s("a", 0.0) == pytest.approx(0.1)
    assert buckets.wait_s("b", 0.0) == 0.0
    assert buckets.wait_s("a", 0.1) == 0.0
    assert buckets.wait_s("a", 0.1) > 0


def test_asking_too_fast_does_not_make_the_wait_longer() -> None:
    """The wait that was told is the wait there is, or nobody could keep to it."""
    buckets = Buckets(1.0, 1)
    buckets.wait_s("a", 0.0)
    waits = [buckets.wait_s("a", 0.5) for _ in range(50)]
    assert set(waits) == {0.5}
    assert buckets.wait_s("a", 1.0) == 0.0


def test_no_rate_is_no_bound() -> None:
    """People at the local socket are known to the kernel and need none."""
    buckets = Buckets(0.0, 1)
    assert not any(buckets.wait_s("a", 0.0) for _ in range(100))
    assert len(buckets) == 0


def test_ten_thousand_sources_do_not_fill_the_memory() -> None:
    """An IPv6 host has more addresses than we have memory (row 35)."""
    buckets = Buckets(1.0, 1, keys_max=64)
    for number in range(10_000):
        buckets.wait_s(f"source {number}", 0.0)
    assert len(buckets) == 64


def test_one_source_is_complained_of_once_a_minute_with_a_count() -> None:
    """The log tells how much there was and is no way to fill a disk (row 34)."""
    complaints = Complaints()
    first = complaints.note("a", 0.0)
    assert first is not None
    assert first.times == 1
    assert [complaints.note("a", float(second)) for second in range(1, 60)] == [None] * 59
    later = complaints.note("a", EVERY_S)
    assert later is not None
    assert (later.source, later.times, complaints.total) == ("a", 60, 61)


def test_a_thousand_sources_share_one_line_beyond_the_bound() -> None:
    """Whoever has a network has many sources."""
    complaints = Complaints()
    said = [complaints.note(f"s{number}", 0.0) for number in range(1000)]
    lines = [line for line in said if line is not None]
    assert len(lines) == SOURCES_MAX + 1
    assert lines[-1].source == OTHERS
    again = complaints.note("fresh", 2 * EVERY_S)
    assert again is not None
    assert again.source == "fresh"
