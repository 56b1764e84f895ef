"""One attempt per host in a while, whatever happens, through the broker."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.clock import boottime_ms
from broker.core.presence import Presence
from broker.errors import (
    CSRRejectedError,
    LeaseLostError,
    RenewalInProgressError,
    StorageError,
    ThrottledError,
)
from broker.shell.verbs.work import LEASE_MS_MAX
from broker.units import UnixSeconds
from broker.wire.control import Ack
from broker.wire.events import WorkAvailable
from broker.wire.ids import Service
from broker.wire.renewal import ForceRenewal, NoteOwnCertificate, StartRekey
from broker.wire.roster import Peer
from broker.wire.work import ExtendLease, LeaseWork, Rekey, ReleaseLease, RenewMember, RenewOwn
from tests.shell.office import make_csr
from tests.shell.paced import Paced, paced
from tests.shell.test_shell_loop import decided

DUE_S = 178
"""Of five minutes at 0.59."""


@pytest.fixture
def mesh(home: Path) -> Iterator[Paced]:
    """A primary that tries a host once a minute."""
    with paced(home) as room:
        yield room


def test_a_failed_push_is_not_tried_again_within_the_minute(mesh: Paced) -> None:
    """The backoff alone would be half of it."""
    mesh.enroll("nas")
    mesh.wait(DUE_S)
    mesh.fail(mesh.granted())
    mesh.wait(59)
    assert mesh.lease() is None
    mesh.wait(1)
    assert mesh.granted().item.host == "nas"


def test_push_and_pull_share_one_pace(mesh: Paced) -> None:
    """Both orders: whoever was first, the other waits for the rest of the minute."""
    nas, pi = mesh.enroll("nas"), mesh.enroll("pi")
    mesh.wait(DUE_S)
    mesh.fail(mesh.granted())
    mesh.fail(mesh.granted())
    for issued, host in ((nas, "nas"), (pi, "pi")):
        with pytest.raises(ThrottledError, match="a moment ago") as refused:
            mesh.pull(issued, host)
        assert 0 < refused.value.retry_after_ms <= 60_000
        assert "attempt_every" in refused.value.hint


def test_a_pull_that_was_refused_is_an_attempt_too(mesh: Paced) -> None:
    """A member whose requests are nonsense costs one signature check a minute."""
    nas = mesh.enroll("nas")
    mesh.wait(DUE_S)
    with pytest.raises(CSRRejectedError):
        mesh.pull(nas, "nas", make_csr("pi"))
    assert mesh.lease() is None
    with pytest.raises(ThrottledError):
        mesh.pull(nas, "nas")
    mesh.wait(60)
    assert mesh.pull(nas, "nas").serial != nas.serial


def test_a_retry_with_the_same_key_is_no_new_attempt(mesh: Paced) -> None:
    """A lost answer is asked for again at once, and is the same certificate."""
    nas = mesh.enroll("nas")
    mesh.wait(DUE_S)
    csr = make_csr("nas")
    first = mesh.pull(nas, "nas", csr)
    assert mesh.pull(nas, "nas", csr).leaf == first.leaf
    with pytest.raises(ThrottledError):
        mesh.pull(nas, "nas")


def test_a_join_is_an_attempt(mesh: Paced) -> None:
    """Somebody who wants a renewal for whatever reason waits for the rest of the minute."""
    nas = mesh.enroll("nas")
    with pytest.raises(ThrottledError):
        mesh.pull(nas, "nas")
    mesh.wait(61)
    assert mesh.pull(nas, "nas").serial != nas.serial


def test_a_member_the_sweep_cannot_reach_gets_its_turn_by_asking(mesh: Paced) -> None:
    """Otherwise a sweep that always fails would spend every turn until the certificate ends."""
    nas = mesh.enroll("nas")
    mesh.wait(DUE_S)
    mesh.fail(mesh.granted())
    mesh.wait(15)
    with pytest.raises(ThrottledError):
        mesh.pull(nas, "nas")
    mesh.wait(50)
    assert mesh.lease() is None, "the sweep took the turn of the member"
    renewed = mesh.pull(nas, "nas")
    assert renewed.not_after > nas.not_after


def test_a_member_that_asked_and_does_not_come_is_swept_again(mesh: Paced) -> None:
    """Its turn is kept for as long as a turn lasts, and no longer."""
    nas = mesh.enroll("nas")
    mesh.wait(DUE_S - 70)
    mesh.office.desk.state.pace.begin(_member_id(mesh, "nas"), boottime_ms(), 60_000)
    with pytest.raises(ThrottledError):
        mesh.pull(nas, "nas")
    mesh.wait(70)
    assert mesh.lease() is None
    mesh.wait(50)
    assert mesh.granted().item.host == "nas"


def test_a_member_that_asks_while_it_is_swept_has_the_next_turn(mesh: Paced) -> None:
    """One lease per host: double issue is impossible, and nobody is starved by that."""
    nas = mesh.enroll("nas")
    mesh.wait(DUE_S)
    lease = mesh.granted()
    with pytest.raises(RenewalInProgressError):
        mesh.pull(nas, "nas")
    mesh.fail(lease)
    mesh.wait(60)
    assert mesh.lease() is None
    assert mesh.pull(nas, "nas").serial != nas.serial
    assert mesh.lease() is None


def test_a_pull_just_before_the_sweep_leaves_nothing_to_sweep(mesh: Paced) -> None:
    """The other order of push and pull."""
    nas = mesh.enroll("nas")
    mesh.wait(DUE_S)
    mesh.pull(nas, "nas")
    mesh.wait(61)
    assert mesh.lease() is None


def test_a_killed_broker_remembers_failed_attempts_and_issued_certificates(mesh: Paced) -> None:
    """`kill -9` in a loop is no way to more attempts."""
    mesh.enroll("nas")
    pi = mesh.enroll("pi")
    mesh.wait(DUE_S)
    mesh.fail(mesh.granted())
    renewed = mesh.deliver(mesh.granted())
    mesh.wait(6)
    mesh.kill()
    assert mesh.lease() is None
    host = "pi" if renewed.not_after > pi.not_after else "nas"
    with pytest.raises(ThrottledError):
        mesh.pull(renewed, _host_of(mesh, renewed.serial) or host)
    mesh.wait(55)
    assert mesh.granted().item.host in {"nas", "pi"}


def test_a_lease_that_was_lost_with_its_worker_was_an_attempt(mesh: Paced) -> None:
    """A host that kills every worker that touches it gets one of them a minute."""
    mesh.enroll("nas")
    mesh.wait(DUE_S)
    mesh.granted()
    mesh.office.desk.state.leases.lost_with(mesh.worker)
    assert mesh.lease() is None
    mesh.wait(60)
    assert mesh.granted().item.host == "nas"


def test_no_worker_keeps_a_member_for_ever_by_extending(mesh: Paced) -> None:
    """A member that is held cannot renew itself either: it would expire in the hands of a bug."""
    nas = mesh.enroll("nas")
    mesh.wait(178)
    lease = mesh.granted()
    with pytest.raises(RenewalInProgressError):
        mesh.pull(nas, "nas")
    for _ in range(LEASE_MS_MAX // 50_000 - 1):
        mesh.wait(50)
        mesh.office.send(mesh.worker, ExtendLease(lease.lease_id, LEASE_MS_MAX), Ack)
    mesh.wait(51)
    with pytest.raises(LeaseLostError):
        mesh.office.send(mesh.worker, ExtendLease(lease.lease_id, LEASE_MS_MAX), Ack)


def test_an_attempt_that_is_handed_back_goes_on_with_the_next_worker(mesh: Paced) -> None:
    """A polite stop costs nothing."""
    mesh.enroll("nas")
    mesh.wait(DUE_S)
    lease = mesh.granted()
    mesh.office.send(mesh.worker, ReleaseLease(lease.lease_id), Ack)
    assert mesh.granted().lease_id > lease.lease_id


def test_a_lost_commit_is_no_attempt(mesh: Paced) -> None:
    """A full disk must not cost the host its turn."""
    mesh.enroll("nas")
    mesh.wait(DUE_S)
    batch = mesh.office.desk.open_batch()
    outgoing = [decided(mesh.office, batch, mesh.worker, LeaseWork())]
    mesh.office.desk.void(batch, outgoing, StorageError("disk full"))
    mesh.wait(1)
    assert mesh.granted().item.host == "nas"


def test_a_worker_sleeps_until_the_pace_ends_and_not_longer(mesh: Paced) -> None:
    """Neither spinning nor oversleeping."""
    mesh.enroll("nas")
    mesh.wait(DUE_S)
    mesh.fail(mesh.granted())
    mesh.wait(1)
    answer = mesh.ask()
    assert answer.lease is None
    assert 58_000 <= answer.next_in_ms <= 59_000
    mesh.clock.push(answer.next_in_ms)
    mesh.tick()
    assert mesh.granted().item.host == "nas"


def test_an_expired_member_keeps_nobody_awake(mesh: Paced) -> None:
    """It stays due for ever and is never offered: that must not be a busy loop."""
    mesh.enroll("nas")
    mesh.wait(301)
    answer = mesh.ask()
    assert answer.lease is None
    mesh.wait(1)
    assert mesh.ask().next_in_ms == 60_000


def test_a_renewal_that_is_asked_for_twice_within_the_minute_is_refused(mesh: Paced) -> None:
    """Typed, with the moment of the last attempt; and nothing waits silently for its turn."""
    office = mesh.office
    mesh.wait(61)
    office.ask(Service.CONSOLE, ForceRenewal("root"), Ack)
    lease = mesh.granted()
    assert isinstance(lease.item, RenewOwn)
    mesh.fail(lease)
    mesh.wait(20)
    events = len(office.events)
    with pytest.raises(ThrottledError, match="began 20 s ago") as refused:
        office.ask(Service.CONSOLE, ForceRenewal("root"), Ack)
    assert refused.value.hint.startswith("wait 40 s")
    assert refused.value.retry_after_ms == 40_000
    assert not office.desk.state.force_renewal
    assert WorkAvailable(Service.RENEWAL) not in office.events[events:]
    mesh.wait(40)
    office.ask(Service.CONSOLE, ForceRenewal("root"), Ack)
    assert isinstance(mesh.granted().item, RenewOwn)


def test_a_wish_that_comes_while_an_attempt_runs_is_another_attempt(mesh: Paced) -> None:
    """A slow hook outlasts the pace: its end must not swallow what a person asked for meanwhile."""
    office = mesh.office
    mesh.wait(61)
    office.ask(Service.CONSOLE, ForceRenewal("root"), Ack)
    lease = mesh.granted()
    mesh.wait(59)
    office.send(mesh.worker, ExtendLease(lease.lease_id, 60_000), Ack)
    mesh.wait(2)
    office.ask(Service.CONSOLE, ForceRenewal("root"), Ack)
    mesh.fail(lease)
    assert office.desk.state.force_renewal
    again = mesh.granted()
    assert isinstance(again.item, RenewOwn)
    mesh.fail(again)
    assert not office.desk.state.force_renewal


def test_a_restarted_node_goes_by_its_certificate(mesh: Paced) -> None:
    """What is on its disk says when it was renewed last."""
    office, now = mesh.office, mesh.clock.wall()
    issued = UnixSeconds(int(now) - 60 - 10)
    end = UnixSeconds(int(now) + 86_400)
    note = NoteOwnCertificate(True, "bb", issued, end, "installed", "")
    office.ask(Service.RENEWAL, note, Ack)
    with pytest.raises(ThrottledError, match="was issued 10 s ago"):
        office.ask(Service.CONSOLE, ForceRenewal("root"), Ack)


def test_a_rename_or_a_new_root_within_the_minute_waits_for_its_turn(mesh: Paced) -> None:
    """What the node wants by itself is not lost, only late."""
    state = mesh.office.desk.state
    mesh.wait(61)
    mesh.office.ask(Service.CONSOLE, ForceRenewal("root"), Ack)
    mesh.fail(mesh.granted())
    state.force_renewal = True
    mesh.wait(50)
    assert mesh.lease() is None
    assert 9_000 <= mesh.ask().next_in_ms <= 10_000
    mesh.wait(10)
    assert isinstance(mesh.granted().item, RenewOwn)


def test_a_node_that_was_pushed_does_not_pull_within_the_minute(mesh: Paced) -> None:
    """One pace for both ways, on the member's side as well."""
    state = mesh.office.desk.state
    mesh.wait(61)
    state.keys.vault = None  # this node plays a member now; its primary is another host
    state.host = "nas"
    peer = Peer("ab", "atlas", "ff", UnixSeconds(int(mesh.clock.wall()) + 1000))
    mesh.office.turn([(mesh.gateway, StartRekey(peer, 1), b"r" * 16)])
    assert isinstance(mesh.granted().item, Rekey)
    with pytest.raises(ThrottledError):
        mesh.office.ask(Service.CONSOLE, ForceRenewal("root"), Ack)


def test_members_that_are_silent_are_tried_after_those_that_answer(mesh: Paced) -> None:
    """However many machines are off, the ones that are on come first."""
    away = [mesh.enroll(f"away{number}") for number in range(3)]
    assert away
    state = mesh.office.desk.state
    _hear(mesh, *(f"away{number}" for number in range(3)))
    mesh.wait(1)
    mesh.enroll("near")
    mesh.enroll("fresh")
    mesh.wait(DUE_S)
    _hear(mesh, "near")
    hosts = []
    while (lease := mesh.lease()) is not None:
        assert isinstance(lease.item, RenewMember)
        hosts.append(lease.item.host)
    assert hosts[:2] == ["near", "fresh"] or hosts[:2] == ["fresh", "near"]
    assert sorted(hosts[2:]) == ["away0", "away1", "away2"]
    assert len(state.due_away) == 0


def _hear(mesh: Paced, *hosts: str) -> None:
    for host in hosts:
        seen = Presence(UnixSeconds(int(mesh.clock.wall())), "aa", "served", 0, 0)
        mesh.office.desk.state.presence.note(_member_id(mesh, host), seen)


def _member_id(mesh: Paced, host: str) -> str:
    member = mesh.office.ledger.member_by_host(host)
    assert member is not None
    return member.member_id


def _host_of(mesh: Paced, serial: str) -> str:
    found = mesh.office.ledger.certificate(serial)
    return found[0].host if found else ""
