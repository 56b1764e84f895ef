"""Whether it ends well: what must be true once a part of a mesh has been whole for a while."""

from typing import TYPE_CHECKING

from broker.wire.facts import InviteUsed, MemberJoined, MemberRevoked
from tests.sim.book import Row

if TYPE_CHECKING:
    from tests.sim.keyholder import Node
    from tests.sim.oracle import Oracle
    from tests.sim.world import World


class Ending:
    """The oracle's last questions."""

    def __init__(self, world: "World", oracle: "Oracle") -> None:
        self.world = world
        self.oracle = oracle
        self.object = oracle.object

    def survivors(self) -> list["Node"]:
        """Return the key holders that are left."""
        return [node for node in self.world.holders if not self.world.is_out(node)]

    def check_component(self, nodes: list["Node"]) -> None:
        """Invariant 8 in a part of the mesh that has been whole for long enough."""
        nodes = [node for node in nodes if node.up and not self.world.is_out(node)]
        serving = [node for node in nodes if node.serving]
        if len(serving) > 1:
            self.object(8, f"{[node.host for node in serving]} all serve")
        if not serving and any(self._ready(node, nodes) for node in nodes):
            self.object(8, f"nobody serves in {[node.host for node in nodes]}")

    def _ready(self, node: "Node", nodes: list["Node"]) -> bool:
        """Whether a key holder has everything that anybody in its part was ever shown."""
        shown = max(self.oracle.memory[other.host].head for other in nodes)
        own = max((other.disk.head.version for other in nodes if other.disk.head), default=shown)
        book = node.disk.book
        caught_up = (book.last_term, len(book.rows)) >= max(shown, own)
        alone = len(nodes) == 1 and len(self.world.hosts) > 2
        return not alone and node.key_holder and node.active and not node.locked and caught_up

    def anybody_ready(self) -> bool:
        """Whether the mesh can choose a primary by itself."""
        up = [node for node in self.world.nodes if node.up and not self.world.is_out(node)]
        return any(self._ready(node, up) for node in up) or any(n.serving for n in up)

    def check_end(self) -> None:
        """Invariants 3, 4, 8 and 9 once everything is whole and quiet."""
        up = [node for node in self.world.nodes if not self.world.is_out(node)]
        self.check_component(up)
        primary = next((node for node in up if node.serving), None)
        if primary is None:
            self.object(8, "nobody serves at the end")
            return
        for node in up:
            leader = node.election.leader
            if node is not primary and (leader is None or leader.host != primary.host):
                self.object(8, f"{node.host} follows {leader}, not {primary.host}")
        self._check_ledgers(primary)

    def _check_ledgers(self, primary: "Node") -> None:
        promised = self._promised()
        for node in self.survivors():
            book = node.disk.book
            if book.end != primary.disk.book.end:
                self.object(4, f"{node.host} has not the primary's journal")
            lost = sorted(promised.keys() - book.hashes)
            if lost:
                self.object(4, f"{node.host} lost {len(lost)} rows, one is {promised[lost[0]]}")
            facts = [row.fact for row in promised.values()]
            out = {fact.member_id for fact in facts if isinstance(fact, MemberRevoked)}
            if not out <= book.revoked:
                self.object(3, f"{node.host} forgot that {sorted(out - book.revoked)} are out")
        for member in self.world.members:
            if not member.destroyed and not primary.disk.book.revoked <= member.disk.revoked:
                self.object(3, f"{member.host} does not know every revocation")
        self._check_invites(primary)

    def _promised(self) -> dict[int, Row]:
        """Return what was acknowledged and not only written on a disk that is gone."""
        if self.world.expelled:
            # What only a revoked node wrote, nobody takes from it.
            known: set[int] = set()
            for node in self.survivors():
                known |= node.disk.book.hashes | node.disk.book.archive.keys()
            self.oracle.excused |= {row.hash for row in self.oracle.acked} - known
        return {row.hash: row for row in self.oracle.acked if row.hash not in self.oracle.excused}

    def _check_invites(self, primary: "Node") -> None:
        """Invariant 9: of all who ever redeemed an invite only the oldest may be active."""
        uses: dict[str, list[tuple[tuple[object, ...], str]]] = {}
        joined, revoked = set(), set()
        for stamp, fact in primary.disk.book.stamped.items():
            if isinstance(fact, InviteUsed):
                age = (stamp.term, stamp.sequence, stamp.node, stamp.incarnation)
                uses.setdefault(fact.invite_id, []).append((age, fact.member_id))
            elif isinstance(fact, MemberJoined):
                joined.add(fact.member_id)
            elif isinstance(fact, MemberRevoked):
                revoked.add(fact.member_id)
        for invite, redeemers in uses.items():
            oldest = min(redeemers)[1]
            active = {member for _, member in redeemers if member in joined - revoked}
            if not active <= {oldest}:
                self.object(9, f"{invite} is used by {sorted(active)}, was {oldest}'s")
