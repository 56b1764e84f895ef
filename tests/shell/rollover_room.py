"""A room whose nodes renew by themselves and connect as mutual TLS would: a rollover needs that."""

import secrets
from pathlib import Path
from typing import TypeVar

from typing_extensions import override

from broker.clock import wall_s
from broker.errors import MeshError, NotAMemberError, PeerUnreachableError, error_classes
from broker.pki.authority import fingerprint, pem
from broker.shell.desk import Outgoing
from broker.shell.trust import anchors_of, pins_of
from broker.wire.base import Reply, Request
from broker.wire.control import Ack, Fault
from broker.wire.enrollment import Issued
from broker.wire.ids import Service
from broker.wire.messages import AnyReply
from broker.wire.node import Endpoint
from broker.wire.renewal import NoteOwnCertificate, RenewalAnswer, RenewAsPeer, RenewWithLease
from broker.wire.rollover import (
    AbortRollover,
    FinishRollover,
    GetRollover,
    RolloverView,
    StartRollover,
)
from broker.wire.roster import BundleAnswer, BundleInstalled, GetBundle, InstallBundle, Peer
from broker.wire.work import (
    CompleteWork,
    HooksRan,
    Installed,
    LeaseWork,
    RenewOwn,
    RunHooks,
    WorkAnswer,
)
from tests.shell.mesh_room import Node, PushedClock, Room
from tests.shell.office import PASSPHRASE, make_csr
from tests.support import eventually
from workers.roster_sync.logic import IMPOSTOR

R = TypeVar("R", bound=Reply)


def error_of(fault: Fault) -> MeshError:
    """Return the error that a refusal stands for."""
    by_code = {code.value: kind for code, kind in error_classes().items()}
    return by_code[fault.code](fault.detail, hint=fault.hint)


def root_of(node: Node) -> str:
    """Return the pin of the CA that signed the certificate a node shows."""
    return node.office.desk.state.own.roots[0]


class RolloverRoom(Room):
    """Every node that is up installs what the CA signs and says what its chain file trusts.

    Those in `idle` do not: their services fall behind.
    """

    idle: set[str]
    told: list[tuple[str, str]]
    request_id: bytes

    @classmethod
    def begin(cls, home: Path, clock: PushedClock, *hosts: str) -> "RolloverRoom":
        """Open a mesh of these hosts besides atlas."""
        room = cls.open(home, clock, *hosts, renewal={"attempt_every": "10s"})
        assert isinstance(room, RolloverRoom)
        room.idle, room.told = set(), []
        for node in room.nodes.values():
            room.say(node, (room.pin,))
        clock.push(2_000)
        return room

    @property
    def pin(self) -> str:
        """The pin in force at the primary."""
        mesh = self.primary().office.ledger.mesh()
        assert mesh is not None
        return mesh.pin

    @override
    def step(self) -> None:
        """Give every node one turn, then let those renew that want to."""
        super().step()
        for node in self.nodes.values():
            if not node.down and node.host not in self.idle:
                self.renew(node)

    @override
    def _call(self, node: Node, target: Endpoint, request: Request, kind: type[R]) -> R:
        """Connect only where mutual TLS would: each side trusts the root of the other's leaf."""
        if self.reaches(node.host, target.host):
            other = self[target.host]
            pairs = ((node, other), (other, node))
            if not all(self.accepts(one, two) for one, two in pairs):
                raise PeerUnreachableError(f"{target.host} {IMPOSTOR}")
        return super()._call(node, target, request, kind)

    @override
    def _bundle(self, node: Node, source: Endpoint) -> None:
        try:
            super()._bundle(node, source)
        except PeerUnreachableError as error:
            if IMPOSTOR not in error.detail or not self.handover(node, source.host):
                raise
        except NotAMemberError:
            # As the worker does: a standby fetches rows all the same, and they bring it home.
            if node.role != "standby":
                raise

    def accepts(self, node: Node, other: Node) -> bool:
        """Whether a node trusts the root under which another one's certificate is."""
        roots = other.office.desk.state.own.roots
        return not roots or roots[0] in self.trusts(node)

    def renew(self, node: Node) -> bool:
        """Play the renewal worker: a certificate of its own, when the broker leases that."""
        identity = node.office.introduce(Service.RENEWAL, "renewal-1")
        lease = node.office.send(identity, LeaseWork(), WorkAnswer).lease
        if lease is not None and isinstance(lease.item, RunHooks):
            self.told.append((node.host, lease.item.event))
            node.office.send(identity, CompleteWork(lease.lease_id, HooksRan()), Ack)
        if lease is None or not isinstance(lease.item, RenewOwn):
            return False
        csr = make_csr(node.host)
        try:
            if lease.item.via_broker:
                renewal = RenewWithLease(lease.lease_id, csr)
                issued = node.office.send(identity, renewal, RenewalAnswer).issued
            else:
                assert lease.item.primary is not None
                request = RenewAsPeer(node.peer, csr)
                issued = self._call(node, lease.item.primary, request, RenewalAnswer).issued
        except MeshError:
            return False
        self.install(node, issued)
        done = CompleteWork(lease.lease_id, Installed(issued.serial, "installed", "", 0))
        node.office.send(identity, done, Ack)
        return True

    def install(self, node: Node, issued: Issued) -> None:
        """Put a certificate into service, with all roots the node trusts in its chain file."""
        node.peer = Peer(issued.serial, node.host, fingerprint(issued.leaf), issued.not_after)
        live = node.office.paths.certificates / node.host / "live"
        (live / "cert.pem").write_text(pem(issued.leaf))
        under = fingerprint(issued.root)
        rest = tuple(pin for pin in self.trusts(node) if pin != under)
        self.say(node, (under, *rest))

    def say(self, node: Node, roots: tuple[str, ...]) -> None:
        """Tell the broker what is live."""
        serial, not_after = node.peer.serial, node.peer.not_after
        note = NoteOwnCertificate(True, serial, wall_s(), not_after, "installed", "", roots)
        node.ask(Service.RENEWAL, note, Ack)

    def trusts(self, node: Node) -> tuple[str, ...]:
        """Return the pins that a node's membership file trusts."""
        membership = node.office.desk.state.membership
        assert membership is not None
        return pins_of(anchors_of(membership))

    def back(self, node: Node, roots: tuple[str, ...] | None = None) -> None:
        """Start a node again from its disk, its chain file included."""
        kept = node.office.desk.state.own.roots if roots is None else roots
        node.restart()
        self.say(node, kept)

    # What an operator does.

    def start(
        self,
        passphrase: str = PASSPHRASE,
        names: tuple[str, ...] = (),
        networks: tuple[str, ...] = (),
    ) -> RolloverView:
        """Start a rollover at the primary and wait for the answer."""
        node = self.primary()
        identity = node.office.introduce(Service.CONSOLE)
        request = StartRollover(passphrase.encode(), "ann", names, networks)
        self.request_id = secrets.token_bytes(16)
        entries = node.office.turn([(identity, request, self.request_id)])
        answers: list[AnyReply] = [entry.reply for entry in entries]
        if not answers:
            eventually(lambda: self._answered(node, answers), within_s=20)
        (answer,) = answers
        if isinstance(answer, Fault):
            raise error_of(answer)
        assert isinstance(answer, RolloverView)
        return answer

    def _answered(self, node: Node, answers: list[AnyReply]) -> bool:
        state = node.office.desk.state
        for then, outcome in state.offloop.finished():
            batch = node.office.desk.open_batch()
            then(batch, outcome)
            outgoing: list[Outgoing] = []
            node.office.events.extend(node.office.desk.finish(batch, outgoing))
            answers.extend(entry.reply for entry in outgoing)
        return bool(answers)

    def finish(self, *, dry_run: bool = False) -> RolloverView:
        """Finish it at the primary."""
        request = FinishRollover("ann", dry_run=dry_run)
        return self.primary().ask(Service.CONSOLE, request, RolloverView)

    def abort(self) -> RolloverView:
        """Abort it at the primary."""
        return self.primary().ask(Service.CONSOLE, AbortRollover("ann"), RolloverView)

    def status(self, host: str = "") -> RolloverView:
        """Ask for the status, of the primary unless somebody else is named."""
        node = self[host] if host else self.primary()
        return node.ask(Service.CONSOLE, GetRollover(), RolloverView)

    def handover(self, node: Node, source: str) -> bool:
        """Play the roster-sync worker of a node that cannot verify `source` any more."""
        answer = self[source].ask(Service.GATEWAY, GetBundle(handover=True), BundleAnswer)
        if not answer.bundle:
            return False
        request = InstallBundle(answer.bundle, source)
        return node.ask(Service.ROSTER_SYNC, request, BundleInstalled).changed
