"""A delivery on this node that failed is tried again: at once due, resting between attempts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.clock import wall_s
from broker.shell.ticks import Ticks
from broker.units import UnixSeconds
from broker.wire.control import Ack
from broker.wire.ids import ServedState, Service
from broker.wire.renewal import ForceRenewal, NoteOwnCertificate, RenewalAnswer, RenewWithLease
from broker.wire.work import (
    CompleteWork,
    Failed,
    Installed,
    LeaseWork,
    RenewOwn,
    WorkAnswer,
    WorkResult,
)
from tests.shell.mesh_room import PushedClock, pushed_clock
from tests.shell.office import Office, make_csr

DAY_S = 86_400
BACKOFF = {"attempt_every": "1m", "backoff_min": "2m", "backoff_max": "4m", "jitter": 0.0}


class Bench:
    """One node with a certificate that is not due for weeks."""

    def __init__(self, home: Path, clock: PushedClock) -> None:
        self.office = Office.create(home, renewal=BACKOFF)
        self.clock = clock
        self.issued_at = wall_s()
        self.begin()

    def begin(self) -> None:
        """Take up work at this life of the broker."""
        self.ticks = Ticks(self.office.desk.state)
        self.worker = self.office.introduce(Service.RENEWAL)

    def note(self, state: ServedState, serial: str = "aa") -> None:
        """Say how the last delivery ended."""
        note = NoteOwnCertificate(
            True,
            serial,
            UnixSeconds(self.issued_at - DAY_S),
            UnixSeconds(self.issued_at + 30 * DAY_S),
            state,
            "hook web exit 1" if state == "failed" else "",
        )
        self.office.send(self.worker, note, Ack)

    def attempt(self, result: WorkResult) -> RenewOwn | None:
        """Do the own renewal if there is one now."""
        lease = self.office.send(self.worker, LeaseWork(), WorkAnswer).lease
        if lease is None:
            return None
        assert isinstance(lease.item, RenewOwn)
        self.office.send(self.worker, CompleteWork(lease.lease_id, result), Ack)
        return lease.item

    def push(self, seconds: int) -> None:
        """Let time pass; the node ticks as it does."""
        for _ in range(seconds // 5):
            self.clock.push(5_000)
            batch = self.office.desk.open_batch()
            now_ms = self.clock.ns // 1_000_000
            self.ticks.run(batch, now_ms, wall_s())  # type: ignore[arg-type]  # milliseconds
            self.office.desk.finish(batch, [])
        self.worker = self.office.introduce(Service.RENEWAL)  # it was silent for so long


@pytest.fixture
def bench(home: Path) -> Iterator[Bench]:
    """A node whose clock is pushed."""
    with pushed_clock() as clock:
        yield Bench(home, clock)


@pytest.mark.parametrize("state", ["failed", "stale"])
def test_a_delivery_that_failed_is_due_though_its_certificate_is_not(
    bench: Bench, state: ServedState
) -> None:
    """Whoever mends the hook should not have to wait for weeks, nor ask."""
    bench.note("installed")
    bench.push(300)
    assert bench.attempt(Failed("no")) is None
    bench.note(state)
    assert bench.attempt(Failed("no")) is None, "it failed this very moment"
    bench.push(125)
    assert bench.attempt(Failed("no")) is not None


def test_attempts_rest_longer_and_longer_up_to_the_ceiling(bench: Bench) -> None:
    """A hook that fails for days must not run every minute."""
    bench.note("failed")
    gaps: list[int] = []
    waited_s = 0
    while len(gaps) < 4:
        bench.push(10)
        waited_s += 10
        if bench.attempt(Failed("hook web exit 1")) is not None:
            gaps.append(waited_s)
            waited_s = 0
    assert gaps == [120, 240, 240, 240]


def test_one_that_stays_live_and_failed_rests_too(bench: Bench) -> None:
    """Without rollback the attempt ends as installed and failed: no reason to spin."""
    bench.note("installed")
    bench.push(300)
    bench.office.ask(Service.CONSOLE, ForceRenewal(""), Ack)
    lease = bench.office.send(bench.worker, LeaseWork(), WorkAnswer).lease
    assert lease is not None
    renewal = RenewWithLease(lease.lease_id, make_csr("atlas"))
    serial = bench.office.send(bench.worker, renewal, RenewalAnswer).issued.serial
    bench.note("failed", serial)
    done = Installed(serial, "failed", "hook web exit 1")
    bench.office.send(bench.worker, CompleteWork(lease.lease_id, done), Ack)
    bench.push(65)
    assert bench.attempt(done) is None
    bench.push(60)
    assert bench.attempt(done) is not None


def test_once_it_serves_nothing_is_due(bench: Bench) -> None:
    """By whichever way it came round: a push, an attempt, or a reload by hand."""
    bench.note("failed")
    bench.push(125)
    bench.note("served")
    assert bench.attempt(Failed("no")) is None
    bench.push(600)
    assert bench.attempt(Failed("no")) is None
    bench.note("failed")
    bench.push(125)
    assert bench.attempt(Failed("no")) is not None, "the rest begins anew"


def test_a_push_ends_the_failure_of_the_pulls_before_it(bench: Bench) -> None:
    """The CA came after all: a warning that stays for ever is one that nobody reads."""
    bench.note("served")
    bench.push(300)
    bench.office.ask(Service.CONSOLE, ForceRenewal(""), Ack)
    assert bench.attempt(Failed("no route")) is not None
    bench.note("served")
    assert bench.office.desk.state.own_failure == "no route", "the same certificate is no news"
    bench.issued_at = UnixSeconds(bench.issued_at + DAY_S)
    bench.note("served", "bb")
    assert bench.office.desk.state.own_failure == ""


def test_waiting_for_a_busy_issuer_is_no_failure_until_it_lasts(bench: Bench) -> None:
    """Two hundred members wake a CA at once: most are told to come again, and nobody is to worry.

    The wish of an operator waits with it.
    """
    bench.note("served")
    bench.push(300)
    bench.office.ask(Service.CONSOLE, ForceRenewal(""), Ack)
    state = bench.office.desk.state
    for _ in range(3):
        assert bench.attempt(Failed("the CA is busy", queued=True)) is not None
        assert (state.own_failure, state.force_renewal) == ("", True)
        bench.push(300)
    assert bench.attempt(Failed("the CA is busy", queued=True)) is not None
    assert (state.own_failure, state.force_renewal) == ("the CA is busy", False)


def test_a_restarted_broker_goes_on_with_it(bench: Bench) -> None:
    """The record on disk says so, and the first report brings it."""
    bench.note("failed")
    bench.office.crash()
    bench.begin()
    bench.note("failed")
    assert bench.attempt(Failed("no")) is None
    bench.push(125)
    assert bench.attempt(Failed("no")) is not None


def test_the_worker_is_told_whether_an_operator_asked(bench: Bench) -> None:
    """Who asks for a renewal wants a new key, unless one that failed is minutes old."""
    bench.note("failed")
    bench.push(125)
    mended = bench.attempt(Failed("no"))
    assert mended is not None
    assert not mended.fresh
    bench.push(125)
    bench.office.ask(Service.CONSOLE, ForceRenewal(""), Ack)
    asked = bench.attempt(Failed("no"))
    assert asked is not None
    assert asked.fresh


def test_one_failure_counts_once_though_the_worker_tells_of_it_twice(bench: Bench) -> None:
    """It reports what is live before it hands in the result; the rest must not double for that."""
    bench.note("installed")
    bench.push(300)
    bench.office.ask(Service.CONSOLE, ForceRenewal(""), Ack)
    lease = bench.office.send(bench.worker, LeaseWork(), WorkAnswer).lease
    assert lease is not None
    bench.note("failed")
    bench.office.send(bench.worker, CompleteWork(lease.lease_id, Failed("no")), Ack)
    bench.push(125)
    assert bench.attempt(Failed("no")) is not None
