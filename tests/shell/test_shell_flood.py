"""Floods at the door: a stranger who knocks 10,000 times costs little and hides nobody."""

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from broker.clock import boottime_ms, wall_s
from broker.core.approval import PENDING_OF_ONE_MAX
from broker.core.limiter import HOST_FACTOR, KEYS_MAX
from broker.errors import BadCredentialError, LeaseLostError, ThrottledError
from broker.shell.attempts import LOCAL_ATTEMPTS
from broker.shell.ticks import Ticks
from broker.shell.verbs.authority import UNLOCK_SOURCE
from broker.shell.verbs.work import LEASE_MS
from broker.wire.approval import ApprovalsView, ListApprovals
from broker.wire.control import Ack
from broker.wire.enrollment import CreateInvite, InviteView, JoinAnswer, PollTicket
from broker.wire.ids import Service
from broker.wire.work import Approve, CompleteWork, Decided, Lease, LeaseWork, WorkAnswer
from tests.shell.mesh_room import PushedClock, pushed_clock
from tests.shell.office import Office, issued_of, join_request, make_csr

STEP_MS = 30_000
FLUSH_MS = 6_000
TICK_MS = 2_000
FLOOD = 10_000
MALLORY, FRIEND = "10.66.6.6", "10.0.0.7"


@pytest.fixture
def clock() -> Iterator[PushedClock]:
    """Time that moves when pushed: each push by a step makes a new code."""
    with pushed_clock() as pushed:
        yield pushed


@pytest.fixture
def office(home: Path, clock: PushedClock) -> Office:
    """A mesh in which a person must agree to joins by code."""
    del clock
    return Office.create(home, approval=True)


def code(office: Office) -> str:
    """Return the code of now."""
    totp = TOTP(office.desk.state.keys.totp_secret, 6, hashes.SHA1(), 30)
    return totp.generate(wall_s()).decode()


def join(office: Office, host: str, source: str, given: str = "") -> JoinAnswer:
    """Join by code."""
    request = join_request(host, make_csr(host), totp_code=given or code(office), source=source)
    return office.ask(Service.GATEWAY, request, JoinAnswer)


def invited(office: Office, host: str, source: str) -> JoinAnswer:
    """Join by a fresh invite."""
    secret = secrets.token_urlsafe(16)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    office.ask(Service.CONSOLE, CreateInvite(digest, host, (), 3600, "ann"), InviteView)
    request = join_request(host, make_csr(host), invite_secret=secret, source=source)
    return office.ask(Service.GATEWAY, request, JoinAnswer)


def guesses(office: Office, count: int, source: str = "", *, hosts: bool = False) -> None:
    """Knock with a wrong code; without a source each time from another address."""
    gateway, csr = office.introduce(Service.GATEWAY), make_csr("nas")
    wrong = f"{(int(code(office)) + 7) % 1_000_000:06}"
    for n in range(count):
        address = source or f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}"
        host = f"h{n}" if hosts else "nas"
        request = join_request(host, csr, totp_code=wrong, source=address)
        office.turn([(gateway, request, secrets.token_bytes(16))])


def let(office: Office, clock: PushedClock, ms: int) -> None:
    """Let time pass, the broker awake all the while."""
    ticks = Ticks(office.desk.state)
    for _ in range(ms // TICK_MS + 1):
        clock.push(TICK_MS)
        batch = office.desk.open_batch()
        ticks.run(batch, boottime_ms(), wall_s())
        office.desk.finish(batch, [])


def lease(office: Office, worker: bytes) -> Lease | None:
    """Ask for one question."""
    return office.send(worker, LeaseWork(), WorkAnswer).lease


def host_of(granted: Lease | None) -> str:
    """Return whom the question is about."""
    assert granted is not None
    assert isinstance(granted.item, Approve)
    return granted.item.host


def test_defect_21_ten_thousand_requests_from_one_source_hide_nobody(office: Office) -> None:
    """The queue of eight was in memory, and full of one sender (row 48, P14)."""
    before = office.ledger.head.sequence

    guesses(office, FLOOD, MALLORY, hosts=True)

    assert office.ledger.approvals_pending() == 0
    assert office.ledger.head.sequence - before <= 2
    assert len(office.desk.state.limiter) <= 16
    assert join(office, "pi", FRIEND).ticket_id
    shown = office.ask(Service.CONSOLE, ListApprovals("pending", limit=1), ApprovalsView)
    assert [line.host for line in shown.approvals] == ["pi"]


def test_ten_thousand_addresses_fill_neither_the_memory_nor_the_journal(office: Office) -> None:
    """A stranger may own a whole network; rows and tables stay bounded, and others get in.

    (row 48, P14)
    """
    before = office.ledger.head.sequence

    guesses(office, FLOOD, hosts=True)

    assert office.ledger.head.sequence - before <= 110
    assert len(office.desk.state.limiter) <= 4 * KEYS_MAX
    assert join(office, "pi", "192.168.1.7").ticket_id


def test_good_codes_from_one_source_get_their_share_of_the_queue(
    office: Office, clock: PushedClock
) -> None:
    """Defect 21, at its worst: a stolen authenticator makes a good code every thirty seconds.

    (row 48)
    """
    refusals = 0
    for n in range(3 * PENDING_OF_ONE_MAX):
        let(office, clock, STEP_MS)
        try:
            join(office, f"box{n}", MALLORY)
        except ThrottledError:
            refusals += 1
    assert office.ledger.approvals_pending() == PENDING_OF_ONE_MAX
    assert refusals == 2 * PENDING_OF_ONE_MAX
    let(office, clock, STEP_MS)
    join(office, "pi", FRIEND)

    shown = office.ask(Service.CONSOLE, ListApprovals("pending", limit=2), ApprovalsView)
    assert [line.host for line in shown.approvals] == ["box0", "pi"]
    every = office.ask(Service.CONSOLE, ListApprovals("", limit=2), ApprovalsView)
    assert [line.host for line in every.approvals] == ["box0", "pi"]
    first, second = (office.introduce(Service.APPROVAL, name) for name in ("one", "two"))
    assert [host_of(lease(office, worker)) for worker in (first, second)] == ["box0", "pi"]


def test_a_code_refused_for_room_is_not_spent(office: Office, clock: PushedClock) -> None:
    """Whoever was turned away because the queue is full comes again with the same code."""
    for n in range(PENDING_OF_ONE_MAX):
        let(office, clock, STEP_MS)
        join(office, f"box{n}", MALLORY)
    let(office, clock, STEP_MS)
    with pytest.raises(ThrottledError):
        join(office, "late", MALLORY)
    assert join(office, "pi", FRIEND).ticket_id


def test_the_person_is_told_what_the_policy_says(office: Office) -> None:
    """A request from outside the mesh's networks is to be looked at twice."""
    join(office, "pi", "203.0.113.9")
    (line,) = office.ask(Service.CONSOLE, ListApprovals("pending"), ApprovalsView).approvals
    assert "outside the networks" in line.note
    granted = lease(office, office.introduce(Service.APPROVAL))
    assert granted is not None
    assert isinstance(granted.item, Approve)
    assert (granted.item.note, granted.item.mesh) == (line.note, "home")


def test_defect_20_nobody_waits_while_a_person_thinks(office: Office) -> None:
    """One question held the core's lock for up to 300 s."""
    pending = join(office, "nas", FRIEND)
    thinking = office.introduce(Service.APPROVAL)
    granted = lease(office, thinking)
    assert host_of(granted) == "nas"

    assert invited(office, "pi", FRIEND).issued is not None
    with pytest.raises(BadCredentialError):
        join(office, "box", MALLORY, "000000")
    assert granted is not None
    done = CompleteWork(granted.lease_id, Decided(True, "ann", ""))
    office.send(thinking, done, Ack)
    answer = office.ask(Service.GATEWAY, PollTicket(pending.ticket_id, "ticket"), JoinAnswer)
    assert issued_of(answer).serial


def test_a_frozen_worker_loses_its_question_to_another_and_its_late_yes_counts_for_nothing(
    office: Office, clock: PushedClock
) -> None:
    """Stopped in mid-question it neither blocks the queue nor decides when it wakes up (row 47)."""
    join(office, "nas", FRIEND)
    frozen, other = (office.introduce(Service.APPROVAL, name) for name in ("one", "two"))
    held = lease(office, frozen)
    assert held is not None
    assert lease(office, other) is None

    let(office, clock, LEASE_MS)
    taken = lease(office, office.introduce(Service.APPROVAL, "two"))

    assert host_of(taken) == "nas"
    late = CompleteWork(held.lease_id, Decided(True, "ann", ""))
    with pytest.raises(LeaseLostError):
        office.send(office.introduce(Service.APPROVAL, "one"), late, Ack)
    assert office.ledger.approvals_pending() == 1


def test_defect_23_strangers_lock_out_nobody_but_themselves(office: Office) -> None:
    """Three bad codes from anyone closed enrollment for all, and a restart opened it again."""
    guesses(office, FLOOD // 10, MALLORY, hosts=True)

    with pytest.raises(ThrottledError):
        join(office, "pi", MALLORY)
    assert join(office, "pi", FRIEND).ticket_id
    assert invited(office, "box", MALLORY).issued is not None


def test_guesses_for_one_name_close_the_codes_of_that_name_alone(office: Office) -> None:
    """From many addresses; the invited host still comes in."""
    attempts = office.settings.enrollment.attempts * HOST_FACTOR
    guesses(office, attempts)

    with pytest.raises(ThrottledError, match="for this host"):
        join(office, "nas", FRIEND)
    assert join(office, "pi", FRIEND).ticket_id
    assert invited(office, "nas", FRIEND).issued is not None


def test_defect_23_a_restart_frees_no_guesser(office: Office, clock: PushedClock) -> None:
    """The windows are written every few seconds, with what else is to be written (row 42)."""
    guesses(office, 5, MALLORY)
    for _ in range(5):
        office.desk.state.limiter.failed(UNLOCK_SOURCE, boottime_ms())
    let(office, clock, FLUSH_MS)
    office.crash()

    with pytest.raises(ThrottledError):
        join(office, "pi", MALLORY)
    with pytest.raises(ThrottledError):
        office.desk.state.limiter.check(UNLOCK_SOURCE, boottime_ms())
    assert join(office, "pi", FRIEND).ticket_id
    let(office, clock, office.settings.enrollment.attempts_wait.ms)
    assert join(office, "box", MALLORY).ticket_id


def test_a_wall_clock_that_was_set_back_frees_no_guesser(
    office: Office, clock: PushedClock
) -> None:
    """Neither while the broker runs nor over its restart (row 20)."""
    guesses(office, 5, MALLORY)
    let(office, clock, FLUSH_MS)
    clock.jump_s = -86_400
    with pytest.raises(ThrottledError):
        join(office, "pi", MALLORY)
    office.crash()
    with pytest.raises(ThrottledError):
        join(office, "pi", MALLORY)


def test_a_damaged_record_of_attempts_fails_closed(office: Office, clock: PushedClock) -> None:
    """No codes for one window; invites, which nobody can guess, go on."""
    office.ledger.local_set(LOCAL_ATTEMPTS, b"\xff torn")
    office.crash()

    with pytest.raises(ThrottledError):
        join(office, "pi", FRIEND)
    assert invited(office, "box", FRIEND).issued is not None
    let(office, clock, office.settings.enrollment.attempts_wait.ms + STEP_MS)
    assert join(office, "pi", FRIEND).ticket_id


def test_refused_joins_write_nothing_by_themselves(office: Office, clock: PushedClock) -> None:
    """No fsync per attempt: the ledger's file does not move until the batched flush."""
    guesses(office, 5, MALLORY)
    guesses(office, 1, FRIEND)
    wal = Path(f"{office.paths.ledger}-wal")
    before = wal.stat().st_mtime_ns

    guesses(office, 1000, MALLORY)
    guesses(office, 3, FRIEND)

    assert wal.stat().st_mtime_ns == before
    let(office, clock, FLUSH_MS)
    assert office.ledger.local_get(LOCAL_ATTEMPTS)
