"""Liveness: promises, suspicion, death and goodbye."""

from broker.core.liveness import DEAD_KEPT_MS, WorkerTable
from broker.units import Millis
from broker.wire.ids import Service
from broker.wire.liveness import SILENCE_MS_MAX, Beat, Ready


def ready(instance: str = "renewal-0", pid: int = 1) -> Ready:
    """Return an introduction."""
    return Ready(Service.RENEWAL, instance, f"boot{pid}", pid, 1)


def test_a_silent_worker_is_suspect_then_dead() -> None:
    """One missed promise is a suspicion, two are a verdict."""
    table = WorkerTable(1000)
    table.welcome(b"a", ready(), Millis(0))
    assert table.sweep(Millis(999)) == ()
    assert [w.liveness for w in table.sweep(Millis(1000))] == ["suspect"]
    assert [w.liveness for w in table.sweep(Millis(2000))] == ["dead"]
    assert [w.pid for w in table.overdue()] == [1]


def test_any_request_counts_as_life() -> None:
    """Paranoid Pirate: traffic is a heartbeat."""
    table = WorkerTable(1000)
    table.welcome(b"a", ready(), Millis(0))
    table.sweep(Millis(1500))
    table.alive(b"a", Millis(1500))
    assert table.overdue() == ()


def test_a_worker_may_announce_a_longer_silence_but_not_any() -> None:
    """A blocking call is announced first; nobody may announce an hour."""
    table = WorkerTable(1000)
    table.welcome(b"a", ready(), Millis(0))
    table.beat(b"a", Beat(1, within_ms=30_000), Millis(0))
    assert table.sweep(Millis(29_999)) == ()
    table.beat(b"a", Beat(2, within_ms=10**9), Millis(0))
    assert [w.liveness for w in table.sweep(Millis(SILENCE_MS_MAX))] == ["suspect"]


def test_a_new_life_of_an_instance_replaces_the_old_one() -> None:
    """A restarted process is not two."""
    table = WorkerTable(1000)
    table.welcome(b"a", ready(pid=1), Millis(0))
    assert table.welcome(b"b", ready(pid=2), Millis(5)) == (b"a",)
    assert table.service_of(b"a") is None
    assert [w.pid for w in table.everyone()] == [2]


def test_goodbye_is_not_death() -> None:
    """Who announced it is not overdue, and may not send requests any more."""
    table = WorkerTable(1000)
    table.welcome(b"a", ready(), Millis(0))
    table.leave(b"a")
    assert table.sweep(Millis(10**6)) == ()
    assert table.overdue() == ()
    assert table.service_of(b"a") is None
    assert not table.beat(b"a", Beat(1, 0), Millis(1))


def test_somebody_dead_for_long_is_forgotten() -> None:
    """A one-off process that was killed must not be a warning for ever."""
    table = WorkerTable(1000)
    table.welcome(b"a", ready(), Millis(0))
    table.sweep(Millis(2000))
    assert table.overdue()
    table.sweep(Millis(1000 + DEAD_KEPT_MS))
    assert table.everyone() == ()
