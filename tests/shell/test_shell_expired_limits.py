"""Renewal after expiry: who has to wait, which CA still counts, and what the node itself does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.clock import boottime_ms, wall_s
from broker.errors import (
    BadCredentialError,
    CALockedError,
    NotAMemberError,
    NotPrimaryError,
    RenewalInProgressError,
    ThrottledError,
)
from broker.pki.authority import fingerprint
from broker.runtime.events import EventName
from broker.units import UnixSeconds
from broker.wire.audit import AuditView, ListAudit
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.node import GetStatus, StatusView
from broker.wire.policy import PolicyPatch, PolicyView, SetPolicy
from broker.wire.renewal import NoteOwnCertificate, RenewalAnswer, RenewExpired
from broker.wire.work import CompleteWork, Failed, LeaseWork, Rekey, RenewOwn, WorkAnswer
from tests.shell.expired_office import (
    GRACE_S,
    GRACIOUS,
    LIFETIME_S,
    Night,
    Sleeper,
    ask,
    enrolled,
    new_key,
)
from tests.shell.mesh_room import Node, PushedClock, Room, pushed_clock
from tests.shell.office import Office, make_csr
from tests.shell.rollover_room import RolloverRoom
from tests.shell.scenes import Make, fail_over

MINUTES_S = 120


@pytest.fixture
def clock() -> Iterator[PushedClock]:
    """Time that is pushed."""
    with pushed_clock() as clock:
        yield clock


@pytest.fixture
def office(home: Path, clock: PushedClock) -> Office:
    """A CA with certificates of an hour, and a grace of a day."""
    del clock
    return Office.create(home, **GRACIOUS)


@pytest.fixture
def night(office: Office, clock: PushedClock) -> Night:
    """What lets time pass."""
    return Night(office, clock)


@pytest.fixture
def sleeper(office: Office) -> Sleeper:
    """A member that is about to sleep."""
    return enrolled(office)


def rows(office: Office, event: str) -> list[Any]:
    """Return the audit rows of one event."""
    view = office.ask(Service.CONSOLE, ListAudit(after=0, limit=500), AuditView)
    return [row for row in view.rows if row.event == event]


def test_who_proves_nothing_has_to_wait_and_fills_no_journal(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """Flooding from one address closes the door for it, and for nobody else."""
    night.sleep(LIFETIME_S + 600)
    attempts = office.settings.enrollment.attempts
    for _ in range(attempts):
        with pytest.raises(BadCredentialError):
            ask(office, sleeper.request(signer=new_key(), source="127.0.0.66"))
    with pytest.raises(ThrottledError) as refused:
        ask(office, sleeper.request(source="127.0.0.66"))
    assert refused.value.retry_after_ms > 0
    assert len(rows(office, "auth.failed")) == 1
    assert rows(office, "auth.failed")[0].fields["host"] == "127.0.0.66"
    assert ask(office, sleeper.request()).serial


def test_a_lock_of_guessers_at_codes_does_not_close_this_door(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """Each proof has a table of its own."""
    night.sleep(LIFETIME_S + 600)
    limiter = office.desk.state.limiter
    for _ in range(20):
        limiter.join_failed("127.0.0.9", "nas", boottime_ms(), invited=False)
    assert ask(office, sleeper.request()).serial


def test_it_keeps_the_pace_of_every_host(office: Office, night: Night, sleeper: Sleeper) -> None:
    """At most one attempt in a while, whichever door it comes by."""
    night.sleep(LIFETIME_S + 600)
    ask(office, sleeper.request())
    with pytest.raises(ThrottledError):
        ask(office, sleeper.request(make_csr("nas")))
    night.sleep(MINUTES_S)
    assert ask(office, sleeper.request(make_csr("nas"))).serial


def test_it_waits_while_the_ca_itself_renews_that_host(
    office: Office, night: Night, sleeper: Sleeper
) -> None:
    """One lease for each host makes double issue impossible."""
    night.sleep(LIFETIME_S + 600)
    state, key = office.desk.state, ("member", sleeper.member_id)
    state.leases.grant(key, Rekey("nas"), b"worker", now_ms=state.started_ms, ttl_ms=10**9)
    with pytest.raises(RenewalInProgressError):
        ask(office, sleeper.request())


def test_a_locked_ca_says_so(office: Office, night: Night, sleeper: Sleeper) -> None:
    """The member tries again; nothing is terminal about it, and nothing is looked at before."""
    office.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    night.sleep(LIFETIME_S + 600)
    for signer in (sleeper.key, new_key()):
        with pytest.raises(CALockedError):
            office.ask(Service.GATEWAY, sleeper.request(signer=signer), RenewalAnswer)


def test_during_a_rollover_a_certificate_of_either_ca_counts_and_afterwards_only_of_the_new(
    home: Path, clock: PushedClock
) -> None:
    """The old CA speaks for its members until it has retired, asleep or not."""
    room = RolloverRoom.begin(home, clock)
    office = room["atlas"].office
    patch = PolicyPatch(leaf_lifetime_s=LIFETIME_S, expired_grace_s=GRACE_S)
    office.ask(Service.CONSOLE, SetPolicy(patch, "ann"), PolicyView)
    nas, pi = enrolled(office, "nas"), enrolled(office, "pi")
    clock.push(2_400_000)
    room.run(10_000)
    enrolled(office, "owl")  # its certificate keeps the old CA in force for another hour
    old, new = room.pin, room.start().next_pin
    room.run(60_000, until=lambda: room.status().trusting == 1)
    room.finish()
    clock.push(1_500_000)
    room.run(10_000)
    assert room.status().phase == "switched"
    assert nas.issued.not_after < wall_s()
    issued = ask(office, nas.request())
    assert [fingerprint(nas.issued.root), fingerprint(issued.root)] == [old, new]
    clock.push(7_200_000)
    room.run(10_000, until=lambda: room.status().phase == "none")
    with pytest.raises(NotAMemberError, match="of a CA that was replaced"):
        ask(office, pi.request())
    nas.take(issued)
    assert ask(office, nas.request()).serial


# The node whose certificate has expired.


def own(node: Node, *, ends_in_s: int) -> None:
    """Say that the node's certificate ends so many seconds from now."""
    end = UnixSeconds(wall_s() + ends_in_s)
    note = NoteOwnCertificate(True, "ab", UnixSeconds(end - 3600), end, "installed", "")
    node.ask(Service.RENEWAL, note, Ack)


def own_work(node: Node) -> RenewOwn | None:
    """Return what a renewal worker of the node is given to do for it."""
    identity = node.office.introduce(Service.RENEWAL)
    lease = node.office.send(identity, LeaseWork(), WorkAnswer).lease
    if lease is None:
        return None
    assert isinstance(lease.item, RenewOwn)
    return lease.item


def test_a_member_whose_certificate_has_expired_uses_its_old_key_at_every_door(
    room: Room,
) -> None:
    """The primary first, then who else may know; never itself."""
    own(room["cedar"], ends_in_s=0)
    item = own_work(room["cedar"])
    assert item is not None
    assert (item.by_old_key, item.via_broker) == (True, False)
    assert [door.host for door in item.doors] == ["atlas", "birch"]


def test_a_member_whose_certificate_is_still_good_for_a_second_pulls_as_always(room: Room) -> None:
    """Mutual TLS proves more."""
    own(room["cedar"], ends_in_s=1)
    item = own_work(room["cedar"])
    assert item is not None
    assert (item.by_old_key, item.doors) == (False, ())


def test_a_standby_whose_certificate_has_expired_asks_the_primary(room: Room) -> None:
    """It holds the CA key and still signs nothing for itself."""
    own(room["birch"], ends_in_s=-5)
    item = own_work(room["birch"])
    assert item is not None
    assert item.by_old_key
    assert [door.host for door in item.doors] == ["atlas"]


def test_a_primary_whose_certificate_has_expired_signs_for_itself(room: Room) -> None:
    """The box of the CA was off for long: its doors open with a certificate of its own making."""
    own(room["atlas"], ends_in_s=-5)
    item = own_work(room["atlas"])
    assert item is not None
    assert (item.by_old_key, item.via_broker) == (False, True)


def test_a_member_that_slept_through_a_failover_finds_the_new_primary_by_the_old_one(
    make: Make,
) -> None:
    """Whatever door it still knows says where the primary is now."""
    room = make("birch", "cedar", "dune", **GRACIOUS)
    room.nominate("birch")
    room.run(2_000)
    room["cedar"].down = True
    fail_over(room)
    room["atlas"].down = False
    room.run(20_000, until=lambda: room["atlas"].role == "standby")
    office = room["atlas"].office
    with pytest.raises(NotPrimaryError) as refused:
        office.ask(Service.GATEWAY, RenewExpired(b"", b"", b"", "127.0.0.3"), RenewalAnswer)
    assert "birch" in refused.value.hint
    room.clock.push(60_000)
    own(room["atlas"], ends_in_s=-5)
    item = own_work(room["atlas"])
    assert item is not None
    assert (item.by_old_key, [door.host for door in item.doors]) == (True, ["birch"])


def test_a_member_beyond_help_says_so_once_and_tries_seldom(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """A terminal state for the machine is one line in the log, and no loop that spins."""
    room = make("cedar", renewal={"backoff_min": "1m", "backoff_max": "1h"})
    cedar = room["cedar"]
    tries, end = 0, wall_s() - 5
    for _ in range(720):
        room.clock.push(10_000)
        cedar.tick()
        own(cedar, ends_in_s=end - wall_s())
        identity = cedar.office.introduce(Service.RENEWAL)
        lease = cedar.office.send(identity, LeaseWork(), WorkAnswer).lease
        if lease is not None:
            tries += 1
            done = CompleteWork(lease.lease_id, Failed("over since long (certmesh invite create)"))
            cedar.office.send(identity, done, Ack)
    assert 5 <= tries <= 10
    said = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
    expired = [line for line in said if line["event"] == EventName.CERTIFICATE_EXPIRED.value]
    assert [line["host"] for line in expired] == ["cedar"]
    status = cedar.ask(Service.CONSOLE, GetStatus(), StatusView)
    assert status.own is not None
    assert status.own.last_error == "over since long (certmesh invite create)"
    assert any("this node's certificate has expired" in text for text in status.warnings)
