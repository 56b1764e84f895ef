"""A whole mesh of brokers in this process: real ledgers and keys, no sockets, time that is pushed.

Each node is an `Office`; this room plays the workers and the network between them. A node that is
`down` neither answers nor ticks; a pair in `cut` cannot reach each other.
"""

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

import broker.clock
from broker.clock import boottime_ms, wall_s
from broker.errors import MeshError, PeerUnreachableError
from broker.ledger.sqlite import Ledger
from broker.pki.authority import fingerprint, pem
from broker.runtime.paths import node_paths
from broker.runtime.settings import Settings
from broker.shell.desk import Desk
from broker.shell.membership import write_membership
from broker.shell.serve import make_state
from broker.shell.ticks import Ticks
from broker.units import UnixSeconds
from broker.wire.base import Reply, Request
from broker.wire.control import Ack
from broker.wire.enrollment import CreateInvite, InviteView, Issued, JoinAnswer
from broker.wire.failover import (
    FailoverPlan,
    Hello,
    HelloAnswer,
    PlanFailover,
    ReportSightings,
    Sighting,
)
from broker.wire.ids import Service
from broker.wire.node import Endpoint, Membership
from broker.wire.renewal import NoteOwnCertificate, RenewalAnswer, RenewWithLease
from broker.wire.replica import (
    AcceptKey,
    AdoptAnswer,
    AdoptRows,
    InstallKey,
    InstallPage,
    JournalAnswer,
    KeyPackage,
    NoteAdopted,
    PageInstalled,
    PlanSync,
    ReadJournal,
    ReportReady,
    SyncPlan,
)
from broker.wire.roster import (
    BundleAnswer,
    BundleInstalled,
    GetBundle,
    HeartbeatAnswer,
    HeartbeatPlan,
    InstallBundle,
    NoteHeartbeat,
    Peer,
    PrepareHeartbeat,
    RecordHeartbeat,
)
from broker.wire.standby import NominateStandby
from broker.wire.work import CompleteWork, Installed, LeaseWork, WorkAnswer
from tests.shell.office import (
    Office,
    issued_of,
    join_request,
    make_csr,
    office_settings,
)

R = TypeVar("R", bound=Reply)
STEP_MS = 250
NOBODY = Peer("", "nobody", "", UnixSeconds(0))
TIMERS = {
    "failover": {"tick": "1s", "grace": "6s", "stagger": "2s"},
    "heartbeat": {"interval": "1s"},
}


class PushedClock:
    """Boot-time clock that moves only when pushed, wall time with it."""

    def __init__(self) -> None:
        # An hour more than it is: what a machine does in its first minutes is another matter.
        self.ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 3_600 * 1_000_000_000
        self.wall_ns = time.time_ns()
        self.jump_s = 0

    def push(self, ms: int) -> None:
        """Let `ms` pass."""
        self.ns += ms * 1_000_000
        self.wall_ns += ms * 1_000_000

    def boottime_ns(self, _clock: int) -> int:
        """Stand in for `clock_gettime_ns`."""
        return self.ns

    def wall(self) -> float:
        """Stand in for `time`."""
        return self.wall_ns / 1e9 + self.jump_s


@contextmanager
def pushed_clock() -> Iterator[PushedClock]:
    """Put a pushed clock under `broker.clock` for the time of the block."""
    clock = PushedClock()
    real = vars(broker.clock)["time"]

    class _Time:
        CLOCK_BOOTTIME = real.CLOCK_BOOTTIME
        clock_gettime_ns = staticmethod(clock.boottime_ns)
        time = staticmethod(clock.wall)

    vars(broker.clock)["time"] = _Time  # the one place where time comes in
    try:
        yield clock
    finally:
        vars(broker.clock)["time"] = real


@dataclass
class Node:
    """One broker, and what its gateway would show others."""

    host: str
    office: Office
    peer: Peer
    ticks: Ticks
    down: bool = False

    def ask(self, service: Service, request: Request, kind: type[R]) -> R:
        """Ask this node's own broker."""
        return self.office.ask(service, request, kind)

    @property
    def role(self) -> str:
        """The role this node has now."""
        return self.office.desk.state.role

    @property
    def phase(self) -> str:
        """The phase of the transition table."""
        election = self.office.desk.state.election
        return election.phase.value if election else "none"

    def tick(self) -> None:
        """Do one periodic turn."""
        batch = self.office.desk.open_batch()
        self.ticks.run(batch, boottime_ms(), wall_s())
        self.office.events.extend(self.office.desk.finish(batch, []))

    def restart(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Lose everything in memory; `meanwhile` is done while nothing has the files open."""
        office = self.office
        office.ledger.close()
        meanwhile()
        ledger = Ledger.open(office.paths.ledger, node=self.host)
        office.desk = Desk(make_state(office.settings, office.paths, ledger))
        self.ticks = Ticks(office.desk.state)
        self.note_certificate()
        self.down = False

    def note_certificate(self) -> None:
        """Say what the renewal worker would say at its start."""
        note = NoteOwnCertificate(
            True, self.peer.serial, wall_s(), self.peer.not_after, "installed", ""
        )
        self.ask(Service.RENEWAL, note, Ack)


@dataclass
class Room:
    """The mesh: atlas founded it; others joined by invite."""

    home: Path
    clock: PushedClock
    nodes: dict[str, Node] = field(default_factory=dict)
    cuts: set[tuple[str, str]] = field(default_factory=set)
    sections: dict[str, Any] = field(default_factory=dict)
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)

    @classmethod
    def open(cls, home: Path, clock: PushedClock, *hosts: str, **sections: Any) -> "Room":
        """Create atlas and let the other hosts join."""
        room = cls(home, clock, sections={**TIMERS, **sections})
        (home / "atlas").mkdir()
        office = Office.create(home / "atlas", **room._settings("atlas", 1))
        atlas = Node("atlas", office, NOBODY, Ticks(office.desk.state))
        room.nodes["atlas"] = atlas
        room._certify_founder(atlas)
        for number, host in enumerate(hosts, start=2):
            room.join(host, number)
        return room

    def __getitem__(self, host: str) -> Node:
        return self.nodes[host]

    # What people and workers do.

    def join(self, host: str, number: int) -> Node:
        """Let a host join by invite at the serving primary."""
        primary = self.primary()
        secret = f"secret-{host}-{number}"
        digest = hashlib.sha256(secret.encode()).hexdigest()
        invite = CreateInvite(digest, host, (), 3600, "ann")
        primary.ask(Service.CONSOLE, invite, InviteView)
        self.keys[host] = ec.generate_private_key(ec.SECP256R1())
        request = join_request(
            host,
            make_csr(host, key=self.keys[host]),
            invite_secret=secret,
            addresses=(f"127.0.0.{number}",),
            source=f"127.0.0.{number}",
        )
        answer = primary.ask(Service.GATEWAY, request, JoinAnswer)
        return self._settle(host, number, answer)

    def nominate(self, host: str) -> None:
        """Make a member a standby, all the way."""
        self.primary().ask(Service.CONSOLE, NominateStandby(host, "ann"), Ack)
        self.run(5_000, until=lambda: self[host].role == "standby" and self.lag(host) == 0)

    def lag(self, host: str) -> int:
        """Rows the primary has and this node has not."""
        primary = self.primary().office.ledger.head.sequence
        return primary - self[host].office.ledger.head.sequence

    def primary(self) -> Node:
        """Return the one node that serves."""
        serving = [node for node in self.nodes.values() if self.serves(node)]
        assert len(serving) == 1, [node.host for node in serving]
        return serving[0]

    def serves(self, node: Node) -> bool:
        """Whether a node is up and serves as primary."""
        return not node.down and node.office.desk.state.serves

    def run(self, ms: int, until: object = None) -> None:
        """Let time pass in small steps, all workers at work, until something is true."""
        for _ in range(max(1, ms // STEP_MS)):
            if callable(until) and until():
                return
            self.clock.push(STEP_MS)
            self.step()
        if callable(until):
            assert until(), {node.host: (node.role, node.phase) for node in self.nodes.values()}

    def step(self) -> None:
        """Give every node that is up one turn of everything."""
        for node in self._up():
            node.tick()
        for node in self._up():
            self.probe(node)
        for node in self._up():
            self.beat(node)
        for node in self._up():
            self.sync(node)

    def reaches(self, source: str, target: str) -> bool:
        """Whether a request of `source` gets to `target` and its answer back."""
        there = target in self.nodes and not self[target].down
        return there and not {(source, target), (target, source)} & self.cuts

    def cut(self, one: str, other: str) -> None:
        """Cut a link."""
        self.cuts.add((one, other))

    def probe(self, node: Node) -> None:
        """Play the failover worker for one round."""
        plan = node.ask(Service.FAILOVER, PlanFailover(), FailoverPlan)
        if plan.claim is None:
            return
        seen = []
        for target in plan.targets:
            request = Hello(node.peer, plan.claim, plan.gossip)
            try:
                answer = self._call(node, target, request, HelloAnswer)
            except MeshError as error:
                seen.append(Sighting(target.host, "", None, error.detail))
            else:
                seen.append(Sighting(target.host, "", answer.claim, "", answer.gossip))
        node.ask(Service.FAILOVER, ReportSightings(tuple(seen)), Ack)

    def beat(self, node: Node) -> None:
        """Play the heartbeat worker for one round."""
        plan = node.ask(Service.HEARTBEAT, PrepareHeartbeat(), HeartbeatPlan)
        for target in plan.targets:
            request = RecordHeartbeat(
                peer=node.peer,
                pin=plan.pin,
                served_serial=plan.served_serial,
                served_not_after=plan.served_not_after,
                served=plan.served,
                endpoint=None,
                clock=wall_s(),
                bundle_sequence=plan.bundle_sequence,
                term=plan.term,
                gossip=plan.gossip,
                trusts=plan.trusts,
                witness=plan.witness,
                bundle_term=plan.bundle_term,
            )
            try:
                answer = self._call(node, target, request, HeartbeatAnswer)
            except MeshError:
                continue
            node.ask(Service.HEARTBEAT, NoteHeartbeat(target.host, answer), Ack)

    def sync(self, node: Node) -> str:
        """Play the roster-sync worker until it has nothing to do; return its last errand."""
        for _ in range(50):
            plan = node.ask(Service.ROSTER_SYNC, PlanSync(), SyncPlan)
            if plan.source is None:
                return plan.errand
            try:
                if not self._errand(node, plan, plan.source):
                    return plan.errand
            except MeshError:
                return plan.errand
        raise AssertionError(f"{node.host} never finishes syncing")

    # The network.

    def _up(self) -> list[Node]:
        return [node for node in self.nodes.values() if not node.down]

    def _call(self, node: Node, target: Endpoint, request: Request, kind: type[R]) -> R:
        if not self.reaches(node.host, target.host):
            raise PeerUnreachableError("no route")
        return self[target.host].ask(Service.GATEWAY, request, kind)

    def _errand(self, node: Node, plan: SyncPlan, source: Endpoint) -> bool:
        match plan.errand:
            case "follow":
                self._bundle(node, source)
                read = ReadJournal(node.peer, plan.locator, 0)
                page = self._call(node, source, read, JournalAnswer).page
                install = InstallPage(source.host, page, plan.locator[0].hash)
                done = node.ask(Service.ROSTER_SYNC, install, PageInstalled)
                return bool(done.rows or done.behind)
            case "accept":
                accept = AcceptKey(node.peer, plan.public_key)
                package = self._call(node, source, accept, KeyPackage)
                node.ask(Service.ROSTER_SYNC, InstallKey(source.host, package), Ack)
                self._call(node, source, ReportReady(node.peer), Ack)
                self._bundle(node, source)
                node.tick()
                return True
            case "return":
                adopt = AdoptRows(node.peer, plan.orphans)
                self._call(node, source, adopt, AdoptAnswer)
                node.ask(Service.ROSTER_SYNC, NoteAdopted(plan.orphans), Ack)
                return True
            case _:
                self._bundle(node, source)
        return False

    def _bundle(self, node: Node, source: Endpoint) -> None:
        bundle = node.office.desk.state.follow.bundle
        after = (bundle.bundle_sequence, bundle.head.term) if bundle else (0, 0)
        ask = GetBundle(after[0], node.peer, after[1])
        answer = self._call(node, source, ask, BundleAnswer)
        if answer.bundle:
            install = InstallBundle(answer.bundle, source.host)
            node.ask(Service.ROSTER_SYNC, install, BundleInstalled)

    # Beginnings.

    def _settings(self, host: str, number: int) -> dict[str, Any]:
        return {
            **self.sections,
            "node": {"name": host},
            "listen": {"enroll": f"127.0.0.{number}:7642", "mesh": f"127.0.0.{number}:7643"},
        }

    def _certify_founder(self, atlas: Node) -> None:
        office = atlas.office
        empty = NoteOwnCertificate(False, "", UnixSeconds(0), UnixSeconds(0), "unknown", "")
        atlas.ask(Service.RENEWAL, empty, Ack)
        identity = office.introduce(Service.RENEWAL)
        work = office.send(identity, LeaseWork(), WorkAnswer)
        assert work.lease is not None
        renewal = RenewWithLease(work.lease.lease_id, make_csr("atlas"))
        issued = office.send(identity, renewal, RenewalAnswer).issued
        done = CompleteWork(work.lease.lease_id, Installed(issued.serial, "installed", "", 0))
        office.send(identity, done, Ack)
        self._keep_certificate(atlas, issued)

    def _settle(self, host: str, number: int, answer: JoinAnswer) -> Node:
        issued = issued_of(answer)
        home = self.home / host
        home.mkdir()
        settings: Settings = office_settings(**self._settings(host, number))
        paths = node_paths(home / "certmesh.toml", settings)
        assert answer.primary is not None
        membership = Membership(
            mesh_id=answer.mesh_id,
            mesh_name=answer.mesh_name,
            pin=fingerprint(issued.root),
            root_pem=pem(issued.root),
            host=host,
            member_id=answer.member_id,
            server_name=answer.server_name,
            primary=answer.primary,
            term=answer.term,
        )
        write_membership(paths, membership)
        ledger = Ledger.open(paths.ledger, node=host)
        desk = Desk(make_state(settings, paths, ledger))
        office = Office(paths, settings, self["atlas"].office.creation, desk)
        node = Node(host, office, NOBODY, Ticks(desk.state))
        self.nodes[host] = node
        self._keep_certificate(node, issued)
        return node

    def _keep_certificate(self, node: Node, issued: Issued) -> None:
        node.peer = Peer(issued.serial, node.host, fingerprint(issued.leaf), issued.not_after)
        live = node.office.paths.certificates / node.host / "live"
        live.mkdir(parents=True)
        node.office.paths.run.mkdir(exist_ok=True)
        (live / "cert.pem").write_text(pem(issued.leaf))
        node.note_certificate()
