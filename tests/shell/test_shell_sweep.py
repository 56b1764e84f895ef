"""What a renewal process is given while it has members in flight."""

from dataclasses import replace
from pathlib import Path

import pytest

from broker.clock import boottime_ms
from broker.ledger.sqlite import Ledger
from broker.shell.dueness import AWAY_LOOKS, AWAY_MAX, DUE_PAGE, LOOK_ON_MS
from broker.shell.tasks import Task
from broker.units import Millis, UnixSeconds
from broker.wire.control import Ack
from broker.wire.ids import Service
from broker.wire.renewal import NoteOwnCertificate
from broker.wire.work import LeaseWork, Rekey, ReleaseLease, RenewMember, RenewOwn, WorkAnswer
from tests.shell.office import Office
from tests.shell.test_shell_renewal import enroll

MORE = LeaseWork(local=False)
ANY = LeaseWork()


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh whose certificates are due as soon as they are issued."""
    return Office.create(
        home,
        policy={"leaf_lifetime": "1h", "renew_at": 0.00001},
        renewal={"jitter": 0.0, "attempt_every": "0s"},
    )


def lack_own_certificate(office: Office) -> None:
    """Have work for this node itself: it has no certificate."""
    none = UnixSeconds(0)
    note = NoteOwnCertificate(
        present=False, serial="", not_before=none, not_after=none, state="unknown", detail=""
    )
    office.ask(Service.RENEWAL, note, Ack)


def test_who_has_members_in_flight_is_given_members_and_told_of_other_work(office: Office) -> None:
    """A hook of this node would keep it from them; the work of the node must not wait for long."""
    enroll(office, "nas")
    enroll(office, "pi")
    worker, other = (office.introduce(Service.RENEWAL, f"renewal-{n}") for n in (0, 1))
    first = office.send(worker, MORE, WorkAnswer)
    assert first.lease is not None
    assert isinstance(first.lease.item, RenewMember)
    lack_own_certificate(office)
    told = office.send(worker, MORE, WorkAnswer)
    assert (told.lease, told.local_waits, told.next_in_ms) == (None, True, 0)
    own = office.send(other, ANY, WorkAnswer)
    assert own.lease is not None
    assert isinstance(own.lease.item, RenewOwn)
    # It is in good hands now: the sweep goes on.
    again = office.send(worker, MORE, WorkAnswer)
    assert again.lease is not None
    assert isinstance(again.lease.item, RenewMember)
    assert not again.local_waits


def test_a_rekey_that_somebody_waits_for_counts_until_it_is_taken(office: Office) -> None:
    """Once one process makes the key, all others may go on with the sweep."""
    enroll(office, "nas")
    worker, other = (office.introduce(Service.RENEWAL, f"renewal-{n}") for n in (0, 1))
    office.desk.state.tasks.add(Task(b"1" * 16, Rekey("atlas")))
    assert office.send(worker, MORE, WorkAnswer).local_waits
    taken = office.send(other, ANY, WorkAnswer).lease
    assert taken is not None
    assert isinstance(taken.item, Rekey)
    more = office.send(worker, MORE, WorkAnswer)
    assert (more.local_waits, more.lease is not None) == (False, True)


def test_no_worker_is_offered_what_another_one_holds(office: Office) -> None:
    """Eight at a time for each of many processes, and still one for each member."""
    hosts = {f"m{number}" for number in range(12)}
    for host in sorted(hosts):
        enroll(office, host)
    workers = [office.introduce(Service.RENEWAL, f"renewal-{n}") for n in range(3)]
    given = []
    while True:
        answers = [office.send(worker, MORE, WorkAnswer) for worker in workers]
        leases = [answer.lease for answer in answers if answer.lease is not None]
        if not leases:
            break
        given += [lease.item.host for lease in leases]
    assert sorted(given) == sorted(hosts)


def test_a_member_that_was_given_back_is_offered_again(office: Office) -> None:
    """A polite stop costs the member nothing."""
    enroll(office, "nas")
    worker, other = (office.introduce(Service.RENEWAL, f"renewal-{n}") for n in (0, 1))
    granted = office.send(worker, MORE, WorkAnswer).lease
    assert granted is not None
    office.send(worker, ReleaseLease(granted.lease_id), Ack)
    office.desk.state.due_not_before_ms = Millis(0)
    taken = office.send(other, MORE, WorkAnswer).lease
    assert taken is not None
    assert taken.item.host == "nas"


def test_leasing_one_after_the_other_reads_each_due_row_once(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cost of a lease must not grow with the number of members that are due."""
    for number in range(DUE_PAGE - 2):
        enroll(office, f"m{number}")
    looks = []
    found = Ledger.due

    def counted(self: Ledger, *arguments: object) -> object:
        looks.append(arguments)
        return found(self, *arguments)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(Ledger, "due", counted)
    worker = office.introduce(Service.RENEWAL)
    for _ in range(DUE_PAGE - 2):
        assert office.send(worker, MORE, WorkAnswer).lease is not None
    assert len(looks) == 1


def test_silent_members_that_came_back_meanwhile_are_checked_a_few_at_a_time(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands were put aside and renewed themselves: no look may hold up the broker's loop."""
    enroll(office, "nas")
    state = office.desk.state
    member = state.ledger.member_by_host("nas")
    assert member is not None
    (certificate,) = state.ledger.certificates_of(member.member_id, 1)
    gone = replace(certificate, serial="00")
    state.due_away.extend([(member, gone)] * AWAY_MAX)
    state.due_not_before_ms = Millis(boottime_ms() + 60_000)
    looked = []
    found = Ledger.member

    def counted(self: Ledger, member_id: str) -> object:
        looked.append(member_id)
        return found(self, member_id)

    monkeypatch.setattr(Ledger, "member", counted)
    worker = office.introduce(Service.RENEWAL)
    answer = office.send(worker, MORE, WorkAnswer)
    assert answer.lease is None
    assert len(looked) <= AWAY_LOOKS
    # The rest is looked at soon, one look after the other, until nothing is left.
    while state.due_away:
        assert answer.next_in_ms == LOOK_ON_MS
        answer = office.send(worker, MORE, WorkAnswer)
    assert answer.next_in_ms > LOOK_ON_MS
