"""One request of every kind that changes something, on one prepared mesh.

The stage is a directory with a mesh of which each case gets a copy. Some requests need something
that only lives in the broker's memory, such as a lease; they ask for it first, in the same life.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from broker.clock import wall_s
from broker.wire.approval import ApprovalsView, DecideApproval, ListApprovals
from broker.wire.authority import AuthorityView, GetAuthority, LockAuthority, UnlockAuthority
from broker.wire.backup import TakeBackup
from broker.wire.base import Request
from broker.wire.enrollment import (
    CreateInvite,
    FinishTOTPRotation,
    InviteView,
    Join,
    JoinAnswer,
    PollTicket,
    RevokeInvite,
    SetEnrollment,
    StartTOTPRotation,
    TOTPRotationView,
)
from broker.wire.ids import Service
from broker.wire.policy import PolicyPatch, SetPolicy
from broker.wire.remote import BindWorker, EnrollWorker, RevokeWorker
from broker.wire.renewal import RenewAsPeer, RenewWithLease, ReportInstalled
from broker.wire.rollover import AbortRollover, FinishRollover, StartRollover
from broker.wire.roster import LeaveMesh, Peer, ReinstateMember, RenameMember, RevokeMember
from broker.wire.slot import AddSlot, RemoveSlot
from broker.wire.standby import NominateStandby, RemoveStandby
from broker.wire.token import CreateToken, RevokeToken
from broker.wire.work import CompleteWork, Failed, LeaseWork, RenewMember, WorkAnswer
from tests.faults.lone import PASSPHRASE, Home
from tests.shell.office import Office, issued_of, join_request, make_csr, peer_of

Ask = Callable[[Service, Request], Any]
"""Asks the living broker of a case and returns its reply."""
WHO = "root"
LEASES_MAX = 5
OPEN_INVITE = hashlib.sha256(b"open").hexdigest()
DUE = {
    "policy": {"leaf_lifetime": "1h", "renew_at": 0.00001},
    "renewal": {"attempt_every": "0s", "jitter": 0.0},
}
"""Certificates that are due as soon as they are issued."""
KEY = "5c" * 32
USED_TICKET = "the ticket of rue"


@dataclass
class Stage:
    """The prepared mesh: members oak, elm (remote worker), fir (nominated), ash (revoked)."""

    home: Home
    peers: dict[str, Peer]
    ticket_id: str

    def peer(self, host: str) -> Peer:
        """Return what a gateway sees of this member."""
        return self.peers[host]


@dataclass(frozen=True)
class Case:
    """A kind of request; `ready` may ask for what it needs and returns the request."""

    service: Service
    ready: Callable[[Stage, Ask], Request]
    remembered: bool = True
    """Its answer is kept with its facts; without that a retry may be refused as a repetition."""
    row_first: bool = False
    """Its row comes before its file: a crash in between leaves the row of what never was."""


def prepared(place: Path) -> Stage:
    """Make the mesh of the stage in `place`."""
    home = Home.at(place)
    office = Office.create(place, approval=True, **DUE)
    peers = {host: _member(office, host) for host in ("oak", "elm", "fir", "ash", "yew")}

    for request in (
        CreateInvite(OPEN_INVITE, "open", (), 3600, WHO),
        CreateInvite(hashlib.sha256(b"door").hexdigest(), "door", (), 3600, WHO),
        RevokeMember("ash", "lost", WHO),
        NominateStandby("fir", WHO),
        EnrollWorker("elm", WHO),
        CreateToken("ab" * 32, "reader", ("read",), 3600, WHO),
    ):
        office.turn([(office.introduce(Service.CONSOLE), request, secrets.token_bytes(16))])
    _pending(office, "pine", b"ticket")
    ticket_id = _pending(office, "rue", USED_TICKET.encode())
    listed = office.ask(Service.CONSOLE, ListApprovals(), ApprovalsView)
    (rue,) = [line for line in listed.approvals if line.host == "rue"]
    yes = DecideApproval(rue.approval_id, approve=True, operator=WHO)
    office.turn([(office.introduce(Service.CONSOLE), yes, secrets.token_bytes(16))])
    office.ledger.close()
    return Stage(home, peers, ticket_id)


def _member(office: Office, host: str) -> Peer:
    secret = secrets.token_urlsafe(16)
    invite = CreateInvite(hashlib.sha256(secret.encode()).hexdigest(), host, (), 3600, WHO)
    office.ask(Service.CONSOLE, invite, InviteView)
    request = join_request(host, make_csr(host), invite_secret=secret)
    return peer_of(issued_of(office.ask(Service.GATEWAY, request, JoinAnswer)), host)


def _pending(office: Office, host: str, ticket: bytes) -> str:
    secret = office.desk.state.keys.totp_secret
    request = join_request(
        host,
        make_csr(host),
        totp_code=_code(secret, steps=int(host == "rue")),
        ticket_hash=hashlib.sha256(ticket).hexdigest(),
        source="127.0.0.8",
    )
    return office.ask(Service.GATEWAY, request, JoinAnswer).ticket_id


def _console(make: Callable[[Stage], Request], *, remembered: bool = True) -> Case:
    return Case(Service.CONSOLE, lambda stage, _ask: make(stage), remembered)


def _gateway(make: Callable[[Stage], Request]) -> Case:
    return Case(Service.GATEWAY, lambda stage, _ask: make(stage))


def _decide(_stage: Stage, ask: Ask) -> Request:
    listed: ApprovalsView = ask(Service.CONSOLE, ListApprovals("pending"))
    return DecideApproval(listed.approvals[0].approval_id, approve=True, operator=WHO)


def _unlock(_stage: Stage, ask: Ask) -> Request:
    ask(Service.CONSOLE, LockAuthority(WHO))
    return UnlockAuthority(PASSPHRASE.encode(), WHO)


def _finish_totp(_stage: Stage, ask: Ask) -> Request:
    view: TOTPRotationView = ask(Service.CONSOLE, StartTOTPRotation(WHO))
    secret = base64.b32decode(view.totp_key.replace(" ", ""))
    return FinishTOTPRotation(_code(secret), WHO)


def _code(secret: bytes, steps: int = 0) -> str:
    totp = TOTP(secret, 6, hashes.SHA1(), 30)
    return totp.generate(wall_s() + 30 * steps).decode()


def _lease(ask: Ask) -> tuple[int, str]:
    for _ in range(LEASES_MAX):
        answer: WorkAnswer = ask(Service.RENEWAL, LeaseWork(local=False))
        assert answer.lease is not None, answer
        if isinstance(answer.lease.item, RenewMember):
            return answer.lease.lease_id, answer.lease.item.host
    raise AssertionError("no member is due")


def _renew_with_lease(_stage: Stage, ask: Ask) -> Request:
    lease_id, host = _lease(ask)
    return RenewWithLease(lease_id, make_csr(host))


def _complete(_stage: Stage, ask: Ask) -> Request:
    lease_id, _host = _lease(ask)
    return CompleteWork(lease_id, Failed("no answer"))


def _add_slot(_stage: Stage, _ask: Ask) -> Request:
    return AddSlot("passphrase", PASSPHRASE.encode(), WHO, b"another one, long enough")


def _remove_slot(_stage: Stage, ask: Ask) -> Request:
    view: AuthorityView = ask(Service.CONSOLE, GetAuthority())
    (slot,) = [slot for slot in view.slots if slot.kind == "credential"]
    return RemoveSlot(slot.slot_id, PASSPHRASE.encode(), WHO)


def _started(request: Request) -> Callable[[Stage, Ask], Request]:
    def ready(_stage: Stage, ask: Ask) -> Request:
        ask(Service.CONSOLE, StartRollover(PASSPHRASE.encode(), WHO))
        return request

    return ready


CASES: dict[type[Request], Case] = {
    LockAuthority: _console(lambda _: LockAuthority(WHO)),
    UnlockAuthority: Case(Service.CONSOLE, _unlock, remembered=False),
    AddSlot: Case(Service.CONSOLE, _add_slot, row_first=True),
    RemoveSlot: Case(Service.CONSOLE, _remove_slot),
    CreateInvite: _console(lambda _: CreateInvite("cd" * 32, "new", (), 3600, WHO)),
    RevokeInvite: _console(lambda _: RevokeInvite(OPEN_INVITE, WHO)),
    SetEnrollment: _console(lambda _: SetEnrollment(open=False, operator=WHO)),
    FinishTOTPRotation: Case(Service.CONSOLE, _finish_totp),
    SetPolicy: _console(lambda _: SetPolicy(PolicyPatch(outage_budget_s=86_400), WHO)),
    DecideApproval: Case(Service.CONSOLE, _decide),
    RevokeMember: _console(lambda _: RevokeMember("oak", "lost", WHO)),
    ReinstateMember: _console(lambda _: ReinstateMember("ash", WHO)),
    RenameMember: _console(lambda _: RenameMember("oak", "oaktree", WHO)),
    NominateStandby: _console(lambda _: NominateStandby("oak", WHO)),
    RemoveStandby: _console(lambda _: RemoveStandby("fir", WHO)),
    CreateToken: _console(lambda _: CreateToken("ef" * 32, "writer", ("admin",), 3600, WHO)),
    RevokeToken: _console(lambda _: RevokeToken("reader", WHO)),
    EnrollWorker: _console(lambda _: EnrollWorker("oak", WHO)),
    RevokeWorker: _console(lambda _: RevokeWorker("elm", WHO)),
    TakeBackup: _console(lambda _: TakeBackup(WHO)),
    StartRollover: _console(lambda _: StartRollover(PASSPHRASE.encode(), WHO)),
    AbortRollover: Case(Service.CONSOLE, _started(AbortRollover(WHO))),
    FinishRollover: Case(Service.CONSOLE, _started(FinishRollover(WHO))),
    Join: _gateway(
        lambda _: join_request(
            "door", make_csr("door"), invite_secret="door", ticket_hash="00" * 32
        )
    ),
    PollTicket: _gateway(lambda stage: PollTicket(stage.ticket_id, USED_TICKET)),
    LeaveMesh: _gateway(lambda stage: LeaveMesh(stage.peer("oak"))),
    RenewAsPeer: _gateway(lambda stage: RenewAsPeer(stage.peer("oak"), make_csr("oak"))),
    ReportInstalled: _gateway(
        lambda stage: ReportInstalled(stage.peer("oak").serial, "served", "", stage.peer("oak"))
    ),
    BindWorker: _gateway(lambda stage: BindWorker(stage.peer("elm"), KEY)),
    RenewWithLease: Case(Service.RENEWAL, _renew_with_lease),
    CompleteWork: Case(Service.RENEWAL, _complete),
}
