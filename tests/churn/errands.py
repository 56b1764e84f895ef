"""What the workers and the people of each node do besides the members: leases, codes, tokens."""

import secrets
from dataclasses import dataclass
from functools import partial
from hashlib import sha256

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from broker.clock import wall_s
from broker.pki.authority import fingerprint
from broker.wire.approval import ApprovalView, DecideApproval
from broker.wire.backup import BackupView, TakeBackup
from broker.wire.base import Reply, Request
from broker.wire.control import Ack
from broker.wire.enrollment import (
    CRLInstalled,
    GetTrust,
    InstallCRL,
    Issued,
    JoinAnswer,
    PollTicket,
    TrustAnswer,
)
from broker.wire.ids import Service
from broker.wire.renewal import RenewalAnswer, RenewWithLease, StartRekey
from broker.wire.roster import Peer, RevokeMember
from broker.wire.standby import StepDown, StepDownAnswer
from broker.wire.token import CheckToken, CreateToken, RevokeToken, TokenView
from broker.wire.work import (
    Approve,
    CompleteWork,
    Decided,
    Failed,
    HooksRan,
    Installed,
    Lease,
    LeaseWork,
    Rekey,
    Rekeyed,
    RenewMember,
    RenewOwn,
    RunHooks,
    SendNotice,
    Sent,
    WorkAnswer,
    WorkItem,
    WorkResult,
)
from tests.churn.crowd import Crowd
from tests.shell.backup_desk import in_process
from tests.shell.mesh_room import Node
from tests.shell.office import issued_of, join_request, make_csr
from tests.shell.settled import settled
from workers.pem import crl_pem

ROUNDS = 100
"""More than anything here has to do at a time: a worker that is never done shows."""


@dataclass
class Errands:
    """Plays workers, operators and strangers on a room of nodes."""

    crowd: Crowd
    turn: int = 0

    def work(self, service: Service) -> None:
        """Let one worker of a service do what there is, on every node."""
        for node in self.crowd.room.nodes.values():
            if not node.down:
                self.crowd.attempt(service.value, partial(self._work, node, service))

    def _work(self, node: Node, service: Service) -> None:
        worker = node.office.introduce(service)
        for _ in range(ROUNDS):
            lease = node.office.send(worker, LeaseWork(), WorkAnswer).lease
            if lease is None:
                return
            self.turn += 1
            result = self._result(node, worker, lease)
            # More than one answer may leave: somebody else may have waited for this one.
            done = CompleteWork(lease.lease_id, result)
            node.office.turn([(worker, done, secrets.token_bytes(16))])
        raise AssertionError(f"{service} is never done at {node.host}")

    def _result(self, node: Node, worker: bytes, lease: Lease) -> WorkResult:
        match lease.item:
            case RenewMember(host=host) if host == self.crowd.oldest() or self.turn % 7 == 0:
                return Failed(f"no route to {host}")
            case RenewMember(host=host):
                return self._sign(node, worker, lease.lease_id, host)
            case RenewOwn(via_broker=True):
                return self._sign(node, worker, lease.lease_id, node.host)
            case Approve():
                return Decided((True, False, None)[self.turn % 3], "ann", "churn")
            case item:
                return _simple(item, node.host)

    def _sign(self, node: Node, worker: bytes, lease_id: int, host: str) -> Installed:
        request = RenewWithLease(lease_id, make_csr(host))
        issued = node.office.send(worker, request, RenewalAnswer).issued
        self._installed(host, issued)
        return Installed(issued.serial, "installed", "", 0)

    def _installed(self, host: str, issued: Issued) -> None:
        self.crowd.renewed(host, issued)
        node = self.crowd.room.nodes.get(host)
        if node is not None:
            node.peer = Peer(issued.serial, host, fingerprint(issued.leaf), issued.not_after)
            if not node.down:
                node.note_certificate()

    def ask_by_code(self) -> None:
        """Let somebody ask by code; a person says yes, no, or nothing at all."""
        primary, host = self.crowd.room.primary(), self.crowd.new_host()
        state = primary.office.desk.state
        code = TOTP(state.keys.totp_secret, 6, hashes.SHA1(), 30).generate(wall_s()).decode()
        source = self.crowd.source()
        csr = make_csr(host)
        request = join_request(host, csr, totp_code=code, source=source)
        answer = primary.ask(Service.GATEWAY, request, JoinAnswer)
        self.turn += 1
        if not answer.ticket_id or self.turn % 3 == 0:
            return
        yes = self.turn % 3 == 1
        decided = DecideApproval(answer.ticket_id, yes, "ann", "churn")
        primary.ask(Service.CONSOLE, decided, ApprovalView)
        if yes:
            poll = PollTicket(answer.ticket_id, "ticket")
            again = primary.ask(Service.GATEWAY, poll, JoinAnswer)
            self.crowd.live[host] = issued_of(again)

    def knock(self) -> None:
        """Let strangers guess, people mistype, and garbage arrive."""
        for _ in range(5):
            host, source = f"x{secrets.token_hex(4)}", self.crowd.source()
            wrong = secrets.token_urlsafe(8)
            bad = join_request(host, self.crowd.csr, invite_secret=wrong, source=source)
            order = RevokeMember(host, "typo", f"op-{secrets.token_hex(2)}")
            shown = CheckToken(secrets.token_hex(32), source)
            self._ask("knock", Service.GATEWAY, bad)
            self._ask("typo", Service.CONSOLE, order)
            self._ask("forge", Service.CONSOLE, shown)

    def _ask(self, name: str, service: Service, request: Request) -> None:
        primary = self.crowd.room.primary()
        self.crowd.attempt(name, partial(primary.ask, service, request, Reply))

    def token(self) -> None:
        """Make a token, use it, take it back."""
        primary, digest = self.crowd.room.primary(), sha256(secrets.token_bytes(8)).hexdigest()
        name = f"t-{secrets.token_hex(4)}"
        made = CreateToken(digest, name, ("read",), 3600, "ann")
        primary.ask(Service.CONSOLE, made, TokenView)
        primary.ask(Service.CONSOLE, CheckToken(digest, "127.0.0.1"), TokenView)
        primary.ask(Service.CONSOLE, RevokeToken(name, "ann"), Ack)

    def rekey(self) -> None:
        """Let the primary ask a member for a key; every other time its worker is too late."""
        room = self.crowd.room
        target, primary = room["cedar"], room.primary()
        gateway = target.office.introduce(Service.GATEWAY)
        request = StartRekey(primary.peer, primary.office.desk.state.term)
        target.office.turn([(gateway, request, secrets.token_bytes(16))])
        self.turn += 1
        if self.turn % 2:
            self._work(target, Service.RENEWAL)

    def lists(self) -> None:
        """Bring the primary's revocation list to the member."""
        room = self.crowd.room
        trust = room.primary().ask(Service.ROSTER_SYNC, GetTrust(), TrustAnswer)
        if trust.crl:
            lists = b"".join(crl_pem(der).encode() for der in (trust.crl, trust.root_crl) if der)
            source = room.primary().host
            room["cedar"].ask(Service.ROSTER_SYNC, InstallCRL(lists, source), CRLInstalled)

    def backup(self) -> None:
        """Write a backup where it belongs."""
        office = self.crowd.room.primary().office
        in_process(office)
        settled(office, TakeBackup("ann"), BackupView)

    def step_down(self) -> None:
        """Hand the role over."""
        self.crowd.room.primary().ask(Service.CONSOLE, StepDown("ann"), StepDownAnswer)


def _simple(item: WorkItem, host: str) -> WorkResult:
    """Return the outcome of work that needs nobody else."""
    match item:
        case Rekey():
            return Rekeyed(make_csr(host))
        case RunHooks():
            return HooksRan()
        case SendNotice(waiting=waiting):
            return Sent(waiting)
        case _:
            return Failed("left to others")
