"""What people and members ask of the primaries meanwhile: joins, renewals, revocations."""

from typing import TYPE_CHECKING

from broker.units import UnixSeconds
from broker.wire.facts import (
    CertificateIssued,
    CertificateRenewed,
    InviteUsed,
    MemberJoined,
    MemberRevoked,
)
from broker.wire.node import Endpoint
from tests.sim.book import Row
from tests.sim.network import WORLD

if TYPE_CHECKING:
    from tests.sim.keyholder import Node
    from tests.sim.world import World

INVITES = 3
INVITE_PERIOD_MS = 40_000
PAPER = "bb"
"""How member ids of enrollments that no simulated node stands for begin."""
NOWHERE = Endpoint("nowhere", (), 0, 0, "nowhere")


class Workload:
    """Random requests to random nodes; each is acknowledged if the node still serves then."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self._number = 0
        self.running = True

    def start(self) -> None:
        """Begin to ask."""
        self._next()

    def _next(self) -> None:
        net = self.world.net
        net.at(net.now + int(500 + net.rng.random() * 4_000), WORLD, self.ask)

    def ask(self) -> None:
        """Ask somebody for something."""
        if not self.running:
            return
        self._next()
        rng, holders = self.world.rng, self.world.holders
        node = holders[int(rng.random() * len(holders))]
        if not node.active or node.halted():
            return
        draw = rng.random()
        if draw < 0.4:
            self.enroll(node)
        elif draw < 0.75:
            self.renew(node)
        else:
            self.revoke(node)

    def enroll(self, node: "Node") -> None:
        """Join with an invite that may be used elsewhere at the same time."""
        world, rng = self.world, self.world.rng
        if node.election.powers(node.around(), node.clock()) != "full":
            return
        # A few invites at a time are shared out twice: both sides of a cut may see them used.
        period = world.net.now // INVITE_PERIOD_MS
        invite = f"{period * INVITES + int(rng.random() * INVITES):x}"
        if rng.random() < 0.4:
            invite = f"f{self._next_number():x}"
        if node.disk.book.used.get(invite):
            return
        world.oracle.enrolls(node)
        member = f"{PAPER}{self._next_number():x}"
        name = f"paper-{int(rng.random() * 40)}"
        if any(
            host == name and known not in node.disk.book.revoked
            for known, host in node.disk.book.joined.items()
        ):
            return
        rows = node.write(
            InviteUsed(invite, member, member),
            MemberJoined(member, name, (), "member", NOWHERE, "invite"),
            self._certificate(member, CertificateIssued),
        )
        self._acknowledge(node, rows)

    def renew(self, node: "Node") -> None:
        """Renew a certificate."""
        member = self._someone(node)
        if member:
            fact = self._certificate(member, CertificateRenewed)
            self._acknowledge(node, node.write(fact))

    def revoke(self, node: "Node") -> None:
        """Revoke a member."""
        member = self._someone(node)
        if member:
            host = node.disk.book.joined[member]
            self._acknowledge(node, node.write(MemberRevoked(member, host, "lost")))

    def _someone(self, node: "Node") -> str:
        book = node.disk.book
        paper = [m for m in book.joined if m[:2] == PAPER and m not in node.disk.revoked]
        return paper[int(self.world.rng.random() * len(paper))] if paper else ""

    def _certificate(
        self, member: str, kind: type[CertificateIssued | CertificateRenewed]
    ) -> CertificateIssued | CertificateRenewed:
        serial = f"{self._next_number():x}"
        at = UnixSeconds(self.world.net.now // 1000)
        later = UnixSeconds(at + 100)
        if kind is CertificateIssued:
            return CertificateIssued(member, serial, member, at, later, later, b"")
        return CertificateRenewed(member, serial, member, at, later, later, b"", "")

    def _acknowledge(self, node: "Node", rows: list[Row]) -> None:
        """Answer after the disk has it, if the node still serves then."""
        net = self.world.net
        due = net.now + 5 + int(net.rng.random() * 50)
        net.at(due, node.index, self._answer, node, rows, node.life)

    def _answer(self, node: "Node", rows: list[Row], life: int) -> None:
        if life == node.life and not node.halted() and node.election.term == rows[0].term:
            self.world.oracle.acknowledged(rows)

    def _next_number(self) -> int:
        self._number += 1
        return self._number
