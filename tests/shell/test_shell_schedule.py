"""When renewals happen: due dates, clocks that jump, backoff, and what is said of a failure."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.clock import boottime_ms, wall_s
from broker.core.own import OwnCertificate
from broker.core.renewal import renew_at
from broker.errors import LeaseLostError, NotFoundError
from broker.units import UnixSeconds
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.renewal import RenewalAnswer, RenewWithLease, ReportInstalled
from broker.wire.roster import HeartbeatAnswer
from broker.wire.work import CompleteWork, Installed, LeaseWork, RenewMember, WorkAnswer
from tests.shell.office import make_csr, peer_of
from tests.shell.paced import Paced, beat_of, paced
from tests.shell.scenes import Make

HOUR_S, DAY_S = 3_600, 86_400
SLOW = {"leaf_lifetime": "30d", "renew_at": 2 / 3}
TWO_MINUTES = {"leaf_lifetime": "2m", "renew_at": 0.3}
BACKOFF = {"jitter": 0.0, "backoff_min": "2m", "backoff_max": "10m"}


@pytest.fixture
def mesh(home: Path) -> Iterator[Paced]:
    """A primary with certificates of five minutes, due after three."""
    with paced(home) as room:
        yield room


@pytest.fixture
def month(home: Path) -> Iterator[Paced]:
    """A primary with certificates of thirty days, due after twenty."""
    with paced(home, policy=SLOW) as room:
        yield room


def test_defect_16_the_first_pass_is_at_the_start(mesh: Paced) -> None:
    """What fell due while the CA was off is offered to the first worker that asks."""
    mesh.enroll("nas")
    mesh.clock.push(178_000)
    mesh.kill()
    assert mesh.granted().item.host == "nas"


def test_defect_16_due_dates_are_spread_by_the_jitter_that_the_shell_draws(home: Path) -> None:
    """Machines that joined together do not renew together; none later than two thirds."""
    with paced(home, policy=SLOW, renewal={"jitter": 0.5}) as mesh:
        drawn = iter((0.0, 0.25, 0.5, 0.99))
        mesh.office.desk.state.chance = lambda: next(drawn)
        dues = [mesh.enroll(f"m{number}") for number in range(4)]
        lives = [(one.renew_at - wall_s()) / (one.not_after - wall_s()) for one in dues]
        assert lives[0] == pytest.approx(2 / 3, abs=0.001)
        assert lives == sorted(lives, reverse=True)
        assert len(set(lives)) == 4
        assert lives[3] > 2 / 3 - 1 / 3 * 0.5


def test_defect_16_failures_back_off_twice_as_long_up_to_a_ceiling(home: Path) -> None:
    """A broken member costs less and less, and is never given up."""
    with paced(home, policy={"leaf_lifetime": "10h", "renew_at": 0.5}, renewal=BACKOFF) as mesh:
        mesh.enroll("nas")
        mesh.wait(5 * HOUR_S)
        waits, last = [], 0
        for _ in range(6):
            while (lease := mesh.lease()) is None:
                mesh.wait(10)
            waits.append(round((boottime_ms() - last) / 60_000))
            last = boottime_ms()
            mesh.fail(lease)
        assert waits[1:] == [2, 4, 8, 10, 10]


def test_defect_16_the_first_failure_is_an_event_and_each_new_reason_too(mesh: Paced) -> None:
    """One row for a streak, one for each change of reason: an alarm is rung once."""
    mesh.enroll("nas")
    mesh.wait(178)
    mesh.fail(mesh.granted(), "no route")
    mesh.wait(60)
    mesh.fail(mesh.granted(), "no route")
    assert mesh.events().count("certificate.renewal_failed") == 1


def test_defect_16_a_new_reason_is_news(home: Path) -> None:
    """The person who mends one thing learns of the next."""
    with paced(home, policy={"leaf_lifetime": "1h", "renew_at": 0.1}) as mesh:
        mesh.enroll("nas")
        mesh.wait(HOUR_S / 10)
        reasons = ("no route", "no route", "hook failed", "hook failed", "no route")
        for reason in reasons:
            while (lease := mesh.lease()) is None:
                mesh.wait(10)
            mesh.fail(lease, reason)
        assert mesh.events().count("certificate.renewal_failed") == 3


def test_a_member_that_goes_on_to_serve_what_is_due_ends_no_failure(mesh: Paced) -> None:
    """A host behind a router beats all the time: that is no recovery, and no reason to hurry."""
    nas = mesh.enroll("nas")
    mesh.report(nas, "nas", "installed")
    mesh.wait(178)
    mesh.fail(mesh.granted())
    for state in ("served", "installed", "served"):
        mesh.wait(3)
        mesh.report(nas, "nas", state)
    member = mesh.office.ledger.member_by_host("nas")
    assert member is not None
    assert member.last_error == "no route"
    assert ("member", member.member_id) in mesh.office.desk.state.backoff


def test_a_recovery_is_said_once_and_clears_the_error(
    mesh: Paced, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever was told of the failure has to learn that it is over."""
    mesh.enroll("nas")
    mesh.wait(178)
    mesh.fail(mesh.granted())
    mesh.wait(60)
    caplog.set_level("INFO")
    renewed = mesh.deliver(mesh.granted())
    for _ in range(3):
        mesh.wait(3)
        mesh.report(renewed, "nas", "served")
    member = mesh.office.ledger.member_by_host("nas")
    assert member is not None
    assert member.last_error == ""
    said = [text for text in caplog.messages if "renewal.recovered" in text]
    assert len(said) == 1
    assert "no route" in said[0]


def test_a_lost_answer_mends_itself_with_the_next_report(mesh: Paced) -> None:
    """Signed, delivered, and the worker heard nothing: the member's word ends the failure."""
    nas = mesh.enroll("nas")
    mesh.wait(178)
    lease = mesh.granted()
    issued = mesh.sign(lease)
    mesh.fail(lease, "the answer was lost")
    mesh.office.send(
        mesh.gateway, ReportInstalled(issued.serial, "served", "", peer_of(nas, "nas")), Ack
    )
    member = mesh.office.ledger.member_by_host("nas")
    assert member is not None
    assert (member.last_error, member.served_serial) == ("", issued.serial)


def test_defect_19_no_word_of_a_member_moves_its_due_date(mesh: Paced) -> None:
    """Beats and reports with foreign serials and wrong dates: the CA goes by what it signed."""
    nas, other = mesh.enroll("nas"), mesh.enroll("pi")
    pin = mesh.office.desk.state.mesh().pin
    for serial in (nas.serial, other.serial, "ff"):
        lie = beat_of(peer_of(nas, "nas"), pin, serial, wall_s() + 10**9)
        mesh.office.send(mesh.gateway, lie, HeartbeatAnswer)
        mesh.wait(3)
    for serial in (other.serial, "ff"):
        report = ReportInstalled(serial, "served", "", peer_of(nas, "nas"))
        with pytest.raises(NotFoundError):
            mesh.office.send(mesh.gateway, report, Ack)
    ((_, due), _) = mesh.office.ledger.due(wall_s() + 10**6, 10)
    assert (due.renew_at, due.not_after) == (nas.renew_at, nas.not_after)
    mesh.wait(178)
    assert {mesh.granted().item.host, mesh.granted().item.host} == {"nas", "pi"}


def test_defect_11_an_unlocked_standby_renews_nobody(make: Make) -> None:
    """Only who serves as primary leases members, however many hold the open key."""
    room = make("birch", "cedar", policy=TWO_MINUTES, renewal={"jitter": 0.0})
    room.nominate("birch")
    room.run(37_000)
    worker = room["birch"].office.introduce(Service.RENEWAL)
    offered = room["birch"].office.send(worker, LeaseWork(), WorkAnswer).lease
    assert offered is None or not isinstance(offered.item, RenewMember)
    worker = room["atlas"].office.introduce(Service.RENEWAL)
    hosts = set()
    while lease := room["atlas"].office.send(worker, LeaseWork(), WorkAnswer).lease:
        hosts.add(lease.item.host)
    assert {"birch", "cedar"} <= hosts


def test_a_suspend_that_stops_the_boot_clock_misses_nothing(month: Paced) -> None:
    """A virtual machine that was paused: the wall clock alone knows how long (row 21)."""
    month.enroll("nas")
    month.wait(60)
    month.clock.jump_s += 21 * DAY_S
    month.wait(1)
    assert month.granted().item.host == "nas"
    assert month.lease() is None


def test_a_suspend_that_the_boot_clock_counts_misses_nothing(month: Paced) -> None:
    """A laptop that slept for three weeks: one renewal, at once."""
    month.enroll("nas")
    month.clock.push(21 * DAY_S * 1000)
    month.tick()
    month.start()
    month.wait(2)
    assert month.granted().item.host == "nas"
    assert month.lease() is None


def test_a_wall_clock_that_steps_back_and_ahead_again_renews_nobody_twice(month: Paced) -> None:
    """No storm, no missed renewal: due dates are read again with every look (row 20)."""
    hosts = [f"m{number}" for number in range(5)]
    for host in hosts:
        month.enroll(host)
    month.clock.push((20 * DAY_S + 60) * 1000)
    month.tick()
    month.start()
    month.wait(1)
    renewed = [month.deliver(month.granted()) for _ in range(2)]
    month.clock.jump_s -= HOUR_S
    month.wait(1)
    assert month.lease() is None, "nobody is due an hour before"
    month.clock.jump_s += HOUR_S
    month.wait(1)
    while (lease := month.lease()) is not None:
        renewed.append(month.deliver(lease))
    assert len(renewed) == len(hosts)
    assert month.events().count("certificate.renewed") == len(hosts)
    month.wait(120)
    assert month.lease() is None


def test_a_restart_under_a_clock_that_stepped_back_holds_nobody_for_long(month: Paced) -> None:
    """A certificate from the future says nothing about now."""
    nas = month.enroll("nas")
    month.clock.jump_s -= HOUR_S
    month.kill()
    assert month.pull(nas, "nas").serial != nas.serial


def test_a_kill_between_signing_and_installing_gives_the_same_certificate(mesh: Paced) -> None:
    """Same key, same certificate: the member that asks again gets what was signed for it.

    (row 6)
    """
    nas = mesh.enroll("nas")
    mesh.wait(178)
    lease, csr = mesh.granted(), make_csr("nas")
    signed = mesh.sign(lease, csr)
    old_worker = mesh.worker
    mesh.kill()
    done = CompleteWork(lease.lease_id, Installed(signed.serial, "served", ""))
    with pytest.raises(LeaseLostError):
        mesh.office.send(mesh.worker, done, Ack)
    assert old_worker != mesh.worker
    assert mesh.lease() is None, "it is not due any more: the ledger has the new one"
    again = mesh.pull(nas, "nas", csr)
    assert again.leaf == signed.leaf
    assert mesh.events().count("certificate.renewed") == 1


def test_a_retry_under_the_lease_gives_the_same_certificate(mesh: Paced) -> None:
    """The worker that lost an answer asks again."""
    mesh.enroll("nas")
    mesh.wait(178)
    lease, csr = mesh.granted(), make_csr("nas")
    request = RenewWithLease(lease.lease_id, csr)
    first = mesh.office.send(mesh.worker, request, RenewalAnswer).issued
    assert mesh.office.send(mesh.worker, request, RenewalAnswer).issued.leaf == first.leaf


def test_a_host_that_renews_itself_is_left_to_do_so_and_swept_when_it_does_not(
    mesh: Paced,
) -> None:
    """A host that cannot be reached is no failure, as long as it comes by itself."""
    nas = mesh.enroll("nas")
    mesh.wait(178)
    mesh.fail(mesh.granted())
    mesh.wait(60)
    nas = mesh.pull(nas, "nas")
    mesh.wait(nas.renew_at - wall_s() + 20)
    assert mesh.lease() is None
    mesh.wait(60)
    assert mesh.granted().item.host == "nas"


def test_the_jitter_of_the_ca_brings_no_sweep_before_the_host_comes_by_itself(home: Path) -> None:
    """A member does not know what was drawn: hours of false alarms for who cannot be reached."""
    with paced(home, policy=SLOW, renewal={"jitter": 0.05}) as mesh:
        mesh.office.desk.state.chance = lambda: 0.99
        nas = mesh.enroll("nas")
        mesh.clock.push((nas.renew_at - wall_s()) * 1000)
        mesh.kill()
        nas = mesh.pull(nas, "nas")
        own = OwnCertificate(
            known=True, present=True, not_before=nas.not_before, not_after=nas.not_after
        )
        comes_at = own.due_at(fraction=2 / 3, pulls=True)
        assert comes_at is not None
        mesh.clock.push((comes_at - wall_s() - 1) * 1000)
        assert mesh.lease() is None
        mesh.clock.push(90_000)
        assert mesh.granted().item.host == "nas"


def test_the_ca_and_the_member_draw_the_same_due_date() -> None:
    """Without jitter: a member that pulls is never before the sweep."""
    due = renew_at(UnixSeconds(0), UnixSeconds(300), fraction=0.59, jitter=0.0)
    assert due == 177


def test_a_new_primary_keeps_short_certificates_alive_and_the_pace(make: Make) -> None:
    """The CA dies in the middle: its heir finds who is due, and who was renewed a moment ago."""
    renewal = {"jitter": 0.0, "attempt_every": "1m"}
    room = make("birch", "cedar", "dogwood", policy=TWO_MINUTES, renewal=renewal)
    room.nominate("birch")
    room.run(37_000)
    atlas = room["atlas"].office
    worker = atlas.introduce(Service.RENEWAL)
    first = atlas.send(worker, LeaseWork(), WorkAnswer).lease
    while first is not None and first.item.host not in {"cedar", "dogwood"}:
        first = atlas.send(worker, LeaseWork(), WorkAnswer).lease
    assert first is not None
    csr = make_csr(first.item.host)
    atlas.send(worker, RenewWithLease(first.lease_id, csr), RenewalAnswer)
    room.run(2_000)
    room["atlas"].down = True
    room.run(40_000, until=lambda: room.serves(room["birch"]))
    birch = room["birch"].office
    worker = birch.introduce(Service.RENEWAL)
    hosts = []
    while lease := birch.send(worker, LeaseWork(), WorkAnswer).lease:
        hosts.append(lease.item.host)
        if isinstance(lease.item, RenewMember):
            issued = birch.send(
                worker, RenewWithLease(lease.lease_id, make_csr(lease.item.host)), RenewalAnswer
            ).issued
            assert issued.not_after > wall_s() + 100
    assert first.item.host not in hosts
    assert {"cedar", "dogwood"} - {first.item.host} <= set(hosts)
