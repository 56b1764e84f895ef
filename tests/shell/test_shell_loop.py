"""The loop itself, over fake sockets with the real interface: no drain leaves a caller waiting."""

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
import zmq

from broker.errors import StorageError
from broker.shell.batch import Batch
from broker.shell.desk import Incoming, Outgoing
from broker.shell.loop import Loop
from broker.units import UnixSeconds
from broker.wire.audit import AuditVerdict, VerifyAudit
from broker.wire.authority import AuthorityView, LockAuthority, UnlockAuthority
from broker.wire.base import Request
from broker.wire.codec import decode_answer, encode
from broker.wire.control import Ack, Fault
from broker.wire.enrollment import (
    CreateInvite,
    EnrollmentView,
    InviteView,
    Issued,
    JoinAnswer,
    SetEnrollment,
)
from broker.wire.facts import RenewalFailed, TOTPStepUsed
from broker.wire.ids import Service
from broker.wire.messages import Call
from broker.wire.node import GetNode, GetStatus, NodeView
from broker.wire.roster import GetBundle, Peer, RecordHeartbeat, RevokeMember
from broker.wire.work import (
    CompleteWork,
    ExtendLease,
    Failed,
    LeaseWork,
    ReleaseLease,
    RenewMember,
    WorkAnswer,
)
from tests.shell.office import (
    PASSPHRASE,
    Office,
    issued_of,
    join_request,
    make_csr,
)
from tests.support import eventually


@dataclass(frozen=True)
class Route:
    """The first frame of a message, of a process that is known already."""

    bytes: bytes
    more: bool = True

    def get(self, _option: str) -> str:
        """Return no address: the office introduced its workers without one."""
        return ""


class Pipe:
    """A ROUTER as the loop sees it: what waits, and what was sent."""

    def __init__(self) -> None:
        self.waiting: list[list[bytes]] = []
        self.sent: list[list[bytes]] = []

    def recv(self, _flags: int, *, copy: bool) -> Route:
        """Return who sent the next message; raises `zmq.Again` when there is none."""
        assert not copy
        if not self.waiting:
            raise zmq.Again
        return Route(self.waiting[0].pop(0))

    def recv_multipart(self, _flags: int) -> list[bytes]:
        """Return the rest of the message."""
        return self.waiting.pop(0)

    def send_multipart(self, frames: list[bytes], _flags: int) -> None:
        """Keep what would have gone out."""
        self.sent.append(frames)

    def put(self, identity: bytes, number: int, request: Request) -> None:
        """Queue a call with a recognizable id."""
        call = Call(number.to_bytes(16), 5000, cast("Any", request))
        self.waiting.append([identity, *encode(call)])

    def answers(self) -> dict[int, object]:
        """Return the replies by the number of their call."""
        answers = [decode_answer(frames[1:]) for frames in self.sent]
        return {int.from_bytes(answer.request_id): answer.reply for answer in answers}


def make_loop(office: Office) -> tuple[Loop, Pipe, Pipe]:
    """Return a loop with its control and request sockets."""
    control, requests, events = Pipe(), Pipe(), Pipe()
    sockets = {"control": control, "requests": requests, "events": events}
    return Loop(office.desk, **cast("Any", sockets)), control, requests


def test_control_is_answered_before_ordinary_requests(home: Path) -> None:
    """A storm of renewals cannot delay a sign of life (row 49)."""
    office = Office.create(home)
    loop, control, requests = make_loop(office)
    console = office.introduce(Service.CONSOLE)
    order: list[str] = []
    control.send_multipart = lambda *_: order.append("control")  # type: ignore[method-assign]  # spied
    requests.send_multipart = lambda *_: order.append("requests")  # type: ignore[method-assign]  # spied
    for number in range(5):
        requests.put(console, number, GetNode())
    control.put(console, 9, GetNode())
    loop.turn({control, requests})
    assert order == ["control", *["requests"] * 5]


def test_every_caller_of_a_drain_that_the_disk_refused_gets_an_answer(home: Path) -> None:
    """Readers get theirs, writers a typed refusal, and nobody waits for a timeout (P12)."""
    office = Office.create(home)
    loop, _, requests = make_loop(office)
    console = office.introduce(Service.CONSOLE)
    connection = office.ledger._connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    requests.put(console, 0, GetNode())
    for number in range(1, 60):
        requests.put(console, number, SetEnrollment(open=not number % 2, operator="x" * 1000))
    while requests.waiting:
        loop.turn({requests})
    answers = requests.answers()
    assert set(answers) == set(range(60))
    assert isinstance(answers[0], NodeView)
    refused = [reply for reply in answers.values() if isinstance(reply, Fault)]
    assert refused
    assert {fault.code for fault in refused} == {"storage"}
    connection.execute("PRAGMA max_page_count=1000000")
    requests.put(console, 99, SetEnrollment(open=False, operator="root"))
    loop.turn({requests})
    assert isinstance(requests.answers()[99], EnrollmentView)


def test_one_drain_is_bounded(home: Path) -> None:
    """What is left waits in the socket for the next one."""
    office = Office.create(home)
    loop, _, requests = make_loop(office)
    console = office.introduce(Service.CONSOLE)
    for number in range(200):
        requests.put(console, number, GetNode())
    loop.turn({requests})
    assert 0 < len(requests.sent) <= 64


def test_a_failed_commit_hands_out_nothing_that_rests_on_it(home: Path) -> None:
    """Defect: a certificate before the roster is saved; here by a second copy in one drain (P1)."""
    office = Office.create(home)
    gateway, console = office.introduce(Service.GATEWAY), office.introduce(Service.CONSOLE)
    secret = "nas-secret"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    office.send(console, CreateInvite(digest, "nas", (), 60, "root"), InviteView)
    request = join_request("nas", make_csr("nas"), invite_secret=secret)
    batch = office.desk.open_batch()
    calls = [(gateway, request), (gateway, request), (console, GetStatus())]
    outgoing = [decided(office, batch, *call) for call in calls]
    office.desk.void(batch, outgoing, StorageError("disk full"))
    assert [type(entry.reply) for entry in outgoing] == [Fault, Fault, Fault]
    assert office.ledger.member_by_host("nas") is None


def test_a_lost_drain_leaves_no_trace_in_memory(home: Path) -> None:
    """Leases live on, the key keeps its state, and no bundle of it is ever shown."""
    office = Office.create(home, policy={"leaf_lifetime": "1h", "renew_at": 0.00001})
    enroll(office, "nas")
    console, worker = office.introduce(Service.CONSOLE), office.introduce(Service.RENEWAL)
    gateway = office.introduce(Service.GATEWAY)
    granted = office.send(worker, LeaseWork(), WorkAnswer).lease
    assert granted is not None
    batch = office.desk.open_batch()
    done = CompleteWork(granted.lease_id, Failed("no route"))
    requests: list[tuple[bytes, Request]] = [
        (worker, done),
        (console, RevokeMember("nas", "lost", "root")),
        (gateway, GetBundle()),
        (console, LockAuthority("root")),
    ]
    outgoing = [decided(office, batch, *call) for call in requests]
    assert not [entry for entry in outgoing if isinstance(entry.reply, Fault)]
    office.desk.void(batch, outgoing, StorageError("disk full"))
    state = office.desk.state
    assert state.keys.state == "unlocked"
    assert state.follow.bundle is None
    assert state.backoff == {}
    assert office.send(worker, ExtendLease(granted.lease_id, 1000), Ack) == Ack()
    assert office.send(worker, done, Ack) == Ack()


def test_one_lease_ends_once_however_often_a_drain_says_so(home: Path) -> None:
    """A repeated completion gets the first answer; another use of the number is refused."""
    office = Office.create(home, policy={"leaf_lifetime": "1h", "renew_at": 0.00001})
    enroll(office, "nas")
    worker = office.introduce(Service.RENEWAL)
    granted = office.send(worker, LeaseWork(), WorkAnswer).lease
    assert granted is not None
    assert isinstance(granted.item, RenewMember)
    # Known already, so that nothing is written and only the memory of the reply can help.
    batch = office.desk.open_batch()
    batch.append(RenewalFailed(granted.item.member_id, "no route"), "renewal")
    batch.commit()
    done = CompleteWork(granted.lease_id, Failed("no route"))
    once, other = bytes(16), bytes([1] * 16)
    calls: list[tuple[bytes, Request, bytes]] = [
        (worker, done, once),
        (worker, done, once),
        (worker, done, other),
        (worker, ReleaseLease(granted.lease_id), bytes([2] * 16)),
    ]
    replies = [entry.reply for entry in office.turn(calls)]
    assert replies[:2] == [Ack(), Ack()]
    refused = [reply.code for reply in replies[2:] if isinstance(reply, Fault)]
    assert refused == ["lease_lost", "lease_lost"]


def test_an_item_is_free_only_after_its_outcome_is_durable(home: Path) -> None:
    """Another worker in the same drain must not be given what was just completed."""
    office = Office.create(
        home,
        policy={"leaf_lifetime": "1h", "renew_at": 0.00001},
        renewal={"backoff_min": "1h", "backoff_max": "1h"},
    )
    enroll(office, "nas")
    first, second = (office.introduce(Service.RENEWAL, f"renewal-{n}") for n in (0, 1))
    granted = office.send(first, LeaseWork(), WorkAnswer).lease
    assert granted is not None
    done = CompleteWork(granted.lease_id, Failed("no route"))
    batch = office.desk.open_batch()
    outgoing = [decided(office, batch, first, done), decided(office, batch, second, LeaseWork())]
    assert isinstance(outgoing[1].reply, WorkAnswer)
    assert outgoing[1].reply.lease is None
    office.desk.void(batch, outgoing, StorageError("disk full"))
    assert office.send(first, done, Ack) == Ack()
    assert office.send(second, LeaseWork(), WorkAnswer).lease is None


def test_a_lease_granted_in_a_lost_drain_is_taken_back(home: Path) -> None:
    """Its worker was refused and will never know the number."""
    office = Office.create(home, policy={"leaf_lifetime": "1h", "renew_at": 0.00001})
    enroll(office, "nas")
    console, worker = office.introduce(Service.CONSOLE), office.introduce(Service.RENEWAL)
    batch = office.desk.open_batch()
    closing = SetEnrollment(open=False, operator="root")
    outgoing = [
        decided(office, batch, console, closing),
        decided(office, batch, worker, LeaseWork()),
    ]
    office.desk.void(batch, outgoing, StorageError("disk full"))
    assert len(office.desk.state.leases) == 0

    def again() -> object:
        return office.send(worker, LeaseWork(), WorkAnswer).lease

    assert eventually(again, within_s=3)


def test_a_member_behind_many_that_back_off_is_found_at_once(home: Path) -> None:
    """Pages bound a look, and nobody hides behind them."""
    office = Office.create(home, policy={"leaf_lifetime": "1h", "renew_at": 0.00001})
    for number in range(4):
        enroll(office, f"m{number}")
    state = office.desk.state
    state.due_after = (2**40, "")  # a cursor far ahead: the pass begins again by itself
    worker = office.introduce(Service.RENEWAL)
    hosts = set()

    def lease() -> object:
        granted = office.send(worker, LeaseWork(), WorkAnswer).lease
        if granted is not None and isinstance(granted.item, RenewMember):
            hosts.add(granted.item.host)
        return len(hosts) == 4

    eventually(lease, within_s=5)


def test_lock_is_the_last_word_of_a_drain(home: Path) -> None:
    """An operator who was told `locked` finds it locked."""
    office = Office.create(home)
    loop, control, requests = make_loop(office)
    console = office.introduce(Service.CONSOLE)
    office.send(console, LockAuthority("root"), AuthorityView)
    requests.put(console, 1, UnlockAuthority(PASSPHRASE.encode(), "root"))
    loop.turn({requests})
    requests.put(console, 2, LockAuthority("root"))
    loop.turn({requests})
    eventually(lambda: _turned(loop, office, requests), within_s=10)
    assert office.desk.state.keys.state == "locked"
    answer = requests.answers()[1]
    assert isinstance(answer, Fault)
    assert answer.code == "conflict"
    assert control.sent == []


def _turned(loop: Loop, office: Office, requests: Pipe) -> bool:
    loop.turn({office.desk.state.offloop.descriptor})
    return 1 in requests.answers()


def test_verifying_the_chain_sees_only_what_is_committed(home: Path) -> None:
    """A row of the same drain is no tampering."""
    office = Office.create(home)
    loop, _, requests = make_loop(office)
    console = office.introduce(Service.CONSOLE)
    requests.put(console, 0, SetEnrollment(open=False, operator="root"))
    requests.put(console, 1, VerifyAudit())
    loop.turn({requests})

    def verdict() -> object:
        loop.turn({office.desk.state.offloop.descriptor})
        return requests.answers().get(1)

    found = eventually(verdict)
    assert isinstance(found, AuditVerdict)
    assert found.first_bad is None


@pytest.mark.parametrize(
    "hostile",
    [
        {"clock": -(2**63)},
        {"clock": 2**62},
        {"bundle_sequence": -1},
        {"term": 2**60},
    ],
)
def test_absurd_numbers_never_reach_a_decision(home: Path, hostile: dict[str, int]) -> None:
    """One heartbeat must not be able to end the broker."""
    office = Office.create(home)
    peer = Peer("ab", "nas", "cd", UnixSeconds(1))
    fields: dict[str, Any] = {
        "clock": 0,
        "bundle_sequence": 0,
        "term": 1,
        **hostile,
    }
    beat = RecordHeartbeat(
        peer=peer,
        pin="ab",
        served_serial="",
        served_not_after=None,
        served="unknown",
        endpoint=None,
        **fields,
    )
    frames = encode(Call(bytes(16), 1, beat))
    batch = office.desk.open_batch()
    entry = office.desk.decide(batch, Incoming(cast("Any", None), b"x", frames))
    assert entry is not None
    assert isinstance(entry.reply, Fault)
    assert entry.reply.code == "malformed"


def test_a_row_the_ledger_contradicts_is_a_refusal_and_not_a_dead_broker(home: Path) -> None:
    """Whatever bug lets one through, the process lives and nothing of its drain is kept."""
    office = Office.create(home)
    batch = office.desk.open_batch()
    batch.append(TOTPStepUsed(1), "x")
    with pytest.raises(StorageError, match="refused a row"):
        batch.append(TOTPStepUsed(1), "x")
    office.desk.void(batch, [], StorageError("void"))
    assert not office.ledger.totp_step_used(1)


def test_an_answer_too_large_to_be_read_becomes_a_refusal(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the caller would drop it unseen and ask again until its patience ends."""
    monkeypatch.setattr("broker.shell.loop.MESSAGE_BYTES_MAX", 300)
    office = Office.create(home)
    loop, _, requests = make_loop(office)
    requests.put(office.introduce(Service.CONSOLE), 7, GetNode())
    loop.turn({requests})
    answer = requests.answers()[7]
    assert isinstance(answer, Fault)
    assert answer.code == "oversized"


def decided(office: Office, batch: Batch, identity: bytes, request: Request) -> Outgoing:
    """Decide one request inside an open drain."""
    frames = encode(Call(secrets.token_bytes(16), 1, cast("Any", request)))
    entry = office.desk.decide(batch, Incoming(cast("Any", None), identity, frames))
    assert entry is not None
    return entry


def enroll(office: Office, host: str) -> Issued:
    """Enroll a member by invite."""
    digest = hashlib.sha256(host.encode()).hexdigest()
    office.ask(Service.CONSOLE, CreateInvite(digest, host, (), 3600, "root"), InviteView)
    request = join_request(host, make_csr(host), invite_secret=host)
    return issued_of(office.ask(Service.GATEWAY, request, JoinAnswer))
