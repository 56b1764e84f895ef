"""The ten invariants, checked against the truth of the simulated world.

Nothing here asks the election whether it was right: the oracle knows who was promoted, which links
are whole, who said what to whom and what is on which disk, and judges by that. It reads only
results of production code: phases, terms, and rows on disks.
"""

from typing import TYPE_CHECKING

from broker.core.observation import Observation, Version
from broker.core.phases import Moved, Phase, Promote, Turn
from broker.wire.facts import FactAdopted, InviteUsed, MemberRevoked
from tests.sim.book import Row
from tests.sim.ending import Ending
from tests.sim.signed import Head

if TYPE_CHECKING:
    from tests.sim.keyholder import Node
    from tests.sim.machine import Disk
    from tests.sim.world import World

SERVING = (Phase.SERVING, Phase.CARETAKING)
STANDBY = (Phase.FOLLOWING, Phase.SUSPECTING)
TERMS_MAX = 150
"""More promotions than any schedule has reasons for."""


class Violation(AssertionError):  # noqa: N818 (the word of the specification)
    """An invariant does not hold; `number` is its place in the list."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"invariant {number}: {text}")
        self.number = number


class Memory:
    """What one node was told, by the oracle's own count."""

    def __init__(self) -> None:
        self.term = 0
        self.head = Version(0, 0)
        self.shown = Version(0, 0)
        self.anybody_ms = -1
        self.revoked: set[str] = set()
        self.rivals: set[tuple[int, str]] = set()
        self.left: set[int] = set()
        self.serving_since = 0
        self.accepted = Version(0, 0)
        self.alone = False
        self.vouched = False
        self.claimed: tuple[int, str] | None = None


class Oracle:
    """Watches a world."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.measuring = False
        timing = world.rules.timing
        self.direct_ms = 2 * timing.tick_ms + timing.settle_ms + 4_000
        self.relayed_ms = 8 * timing.tick_ms + timing.settle_ms + 8_000
        self.terms: dict[int, set[str]] = {}
        self.signed_heads: dict[tuple[str, int, Version], int] = {}
        self.memory = {host: Memory() for host in world.hosts}
        self.acked: list[Row] = []
        self.excused: set[int] = set()
        self.copied: set[int] = set()
        self.terms[1] = {world.hosts[world.shape.first]}
        self.ending = Ending(world, self)
        self.owners = {(1, world.hosts[world.shape.first], world.shape.first + 1)}

    def object(self, number: int, text: str) -> None:
        """Raise, unless this run only measures."""
        if not self.measuring:
            raise Violation(number, text)

    # What nodes were told.

    def started(self, node: "Node") -> None:
        """A broker has started: what was only in memory is gone."""
        memory = self.memory[node.host]
        memory.rivals.clear()
        memory.anybody_ms = -1
        memory.accepted = max(memory.accepted, Version(0, 0))
        if node.election.serving:
            memory.serving_since = self.world.net.now

    def forgets(self, node: "Node", term: int) -> None:
        """A crash came before the newest term was durable."""
        self.memory[node.host].term = term

    def hears(self, node: "Node", seen: Observation) -> None:
        """A message is about to reach an election."""
        memory = self.memory[node.host]
        memory.anybody_ms = self.world.net.now
        memory.alone = memory.vouched = False
        claim = seen.claim
        term = 0 if claim is None else max(claim.term, claim.highest_term)
        memory.claimed = (claim.term, claim.host) if claim and claim.role == "primary" else None
        for beat in seen.beats:
            term = max(term, beat.term)
            if beat.left:
                memory.left.add(beat.term)
        if seen.head is not None:
            term = max(term, seen.head.term)
            memory.head = max(memory.head, seen.head)
        memory.term = max(memory.term, term)
        if claim is not None and claim.role == "primary" and claim.serving:
            memory.rivals.add((claim.term, claim.host))

    def heard(self, node: "Node") -> None:
        """A message has reached an election."""
        election, memory = node.election, self.memory[node.host]
        if election.highest_head < memory.accepted:
            self.object(2, f"{node.host} went back to {election.highest_head}")
        memory.accepted = election.highest_head
        if election.phase not in SERVING:
            return
        if election.term < memory.term:
            self.object(1, f"{node.host} serves {election.term}, was told of {memory.term}")
        for other in self.world.holders:
            if other is not node and other.serving and other.election.term == election.term:
                mine = (election.term, other.host) in memory.rivals
                theirs = (election.term, node.host) in self.memory[other.host].rivals
                if mine and theirs:
                    self.object(1, f"{node.host} and {other.host} both serve {election.term}")

    def saw_revoked(self, node: "Node", revoked: frozenset[str]) -> None:
        """A member got a bundle."""
        self.memory[node.host].revoked |= revoked

    # What nodes did.

    def moved(self, node: "Node", moved: Moved) -> None:
        """A phase changed."""
        memory, election, now = self.memory[node.host], node.election, self.world.net.now
        if moved.after in SERVING and moved.before not in SERVING:
            memory.serving_since = now
        if moved.turn is Turn.LEFT:
            memory.left.add(election.term)
        if moved.turn is Turn.OUTRANKED:
            self._check_demotion(node, moved)
        if moved.after in SERVING and node.locked:
            self.object(5, f"{node.host} serves with a locked key")

    def _check_demotion(self, node: "Node", moved: Moved) -> None:
        """Invariants 6 and 7: somebody real must outrank it, and must have lived lately."""
        term, memory = node.election.term, self.memory[node.host]
        if any(higher > term for higher in self.terms):
            return
        claimed_term, rival = memory.claimed or (0, "")
        outranks = rival < node.host or moved.before is Phase.PENDING
        if claimed_term == term and rival in self.terms[term] and outranks:
            return
        self.object(7, f"{node.host} gave up term {term} for nobody: {moved.detail}")

    def promotes(self, node: "Node", wanted: Promote) -> None:
        """A node is about to take over; its journal is as it was."""
        election, memory, world = node.election, self.memory[node.host], self.world
        if wanted.term <= memory.term:
            self.object(1, f"{node.host} takes {wanted.term}, was told of {memory.term}")
        if node.locked or not node.key_holder:
            self.object(5, f"{node.host} promotes locked or without a key")
        if node.member_id in node.disk.revoked:
            self.object(5, f"{node.host} promotes although it is revoked")
        if election.phase in STANDBY:
            self._check_candidate(node, wanted)
        self.terms.setdefault(wanted.term, set()).add(node.host)
        if len(self.terms) > TERMS_MAX:
            self.object(8, "the mesh does not come to rest")
        self.owners.add((wanted.term, node.host, node.disk.incarnation))
        memory.alone = wanted.cause == "silence" and self._is_pair(node)
        memory.vouched = wanted.cause == "operator"
        world.log(node, f"promotes from {election.phase}")

    def _is_pair(self, node: "Node") -> bool:
        """Whether a node's roster lists one other node."""
        return len(self.world.hosts) - len(self.world.hosts_of(node.disk.revoked)) == 2

    def _check_candidate(self, node: "Node", wanted: Promote) -> None:
        memory, world, now = self.memory[node.host], self.world, self.world.net.now
        forced = node.election.called(node.clock()) and world.forced
        book = node.disk.book
        if memory.head > (book.last_term, len(book.rows)) and not forced:
            self.object(5, f"{node.host} promotes behind {memory.head}")
        self._check_nobody_leads(node, wanted)
        if wanted.cause == "handover" and memory.term > max(memory.left, default=0):
            self.object(7, f"{node.host} takes over: {wanted.evidence}, in an older term")
        if wanted.cause != "silence":
            return
        grace = world.rules.timing.grace_ms
        if not self._is_pair(node) and not 0 <= now - memory.anybody_ms <= grace:
            self.object(5, f"{node.host} promotes although it heard nobody")
        if world.rules.mode == "manual":
            self.object(5, f"{node.host} promotes by itself in manual mode")

    def _check_nobody_leads(self, node: "Node", wanted: Promote) -> None:
        """Invariant 10: nobody replaces a primary that it can hear."""
        if wanted.cause == "operator":
            return
        world, newest = self.world, max(self.terms)
        for other in world.holders:
            if other is node or not other.serving or other.election.term != newest:
                continue
            if self.world.is_out(other) or self.world.is_out(node):
                continue
            long = world.net.now - self.memory[other.host].serving_since
            if min(long, world.clean_ms(node, other)) >= self.direct_ms and not other.leaving:
                self.object(10, f"{node.host} promotes although it can hear {other.host}")

    def signed(self, node: "Node", term: int) -> None:
        """A node signs a beat."""
        if node.locked or term < self.memory[node.host].term:
            self.object(1, f"{node.host} signs in term {term}, locked or outranked")

    def showed(self, node: "Node", head: Head) -> None:
        """A primary signs a head."""
        memory = self.memory[node.host]
        if head.version < memory.head:
            self.object(2, f"{node.host} shows {head.version} after {memory.head}")
        known = self.signed_heads.setdefault(
            (node.host, node.disk.incarnation, head.version), head.hash
        )
        self._check_durable(node, head)
        if known != head.hash:
            self.object(2, f"{node.host} shows two contents as {head.version}")

    def _check_durable(self, node: "Node", head: Head) -> None:
        """Nobody could replace a primary that shows what only its own disk has."""
        world, now = self.world, self.world.net.now
        others = [other for other in world.holders if other is not node]
        if world.expelled or head.hash in self.copied:
            return
        serves_ms = now - self.memory[node.host].serving_since
        for other in others:
            follows_ms = min(serves_ms, world.clean_ms(node, other))
            if follows_ms >= 2 * self.direct_ms and other.election.phase in STANDBY:
                self.object(8, f"{node.host} shows {head.version}, which {other.host} lacks")

    def wrote(self, node: "Node", rows: list[Row]) -> None:
        """A node has written rows of its own."""
        memory, election = self.memory[node.host], node.election
        if rows[0].term < memory.term:
            self.object(1, f"{node.host} writes in {rows[0].term}, was told of {memory.term}")
        life = (rows[0].term, node.host, node.disk.incarnation)
        if life not in self.owners or election.term != rows[0].term:
            self.object(
                2, f"{node.host} writes in term {rows[0].term} of another, or of a former life"
            )
        if node.locked:
            self.object(5, f"{node.host} writes with a locked key")
        self._learn(node, rows)

    def installed(self, node: "Node") -> None:
        """A standby has taken rows over, perhaps after a fork."""
        memory, book = self.memory[node.host], node.disk.book
        memory.term = max(memory.term, book.last_term)
        self.copied.update(row.hash for row in book.rows[-50:])
        self._learn(node, book.rows[-50:])

    def _learn(self, node: "Node", rows: list[Row]) -> None:
        memory, book = self.memory[node.host], node.disk.book
        memory.revoked |= {
            row.fact.member_id for row in rows if isinstance(row.fact, MemberRevoked)
        }
        if not memory.revoked <= node.disk.revoked:
            again = sorted(memory.revoked - node.disk.revoked)
            self.object(3, f"{node.host} accepts {again} again")
        if any(isinstance(row.fact, FactAdopted | InviteUsed) for row in rows):
            for invite in book.used:
                if len(book.active_redeemers(invite)) > 1:
                    self.object(9, f"{node.host} has two redeemers of {invite}")

    def enrolls(self, node: "Node") -> None:
        """Somebody joins here: nobody else in reach may do the same."""
        memory, now = self.memory[node.host], self.world.net.now
        lately = 0 <= memory.anybody_ms >= now - self.world.rules.timing.grace_ms
        if not lately and not memory.vouched:
            self.object(1, f"{node.host} enrolls although it heard nobody")
        if memory.alone:
            self.object(1, f"{node.host} enrolls as a caretaker")
        for other in self.world.holders:
            if other is not node and self._both_serve(node, other):
                self.object(1, f"{node.host} and {other.host} both enroll")

    def _both_serve(self, one: "Node", other: "Node") -> bool:
        """Whether two nodes with full powers should long know of each other."""
        if not other.serving or other.halted() or self.world.expelled:
            return False
        if other.election.powers(other.around(), other.clock()) != "full":
            return False
        now, memory = self.world.net.now, self.memory
        both = now - max(memory[one.host].serving_since, memory[other.host].serving_since)
        if min(both, self.world.clean_ms(one, other)) >= self.direct_ms:
            return True
        return any(
            min(both, self.world.clean_ms(one, member), self.world.clean_ms(member, other))
            >= self.relayed_ms
            for member in self.world.members
            if self.world.hostile is None or member is not self.world.hostile.node
        )

    # What was promised.

    def acknowledged(self, rows: list[Row]) -> None:
        """Somebody was told that this is done."""
        self.acked.extend(rows)

    def lost_disk(self, node: "Node", lost: "Disk") -> None:
        """A disk is gone, or an old copy of it is back: what only it knew is excused."""
        memory = self.memory[node.host]
        kept = {
            row_hash
            for other in self.world.nodes
            for row_hash in other.disk.book.hashes | other.disk.book.archive.keys()
        }
        gone = (lost.book.hashes | lost.book.archive.keys()) - kept
        self.excused |= gone
        memory.revoked = set(node.disk.revoked)
        standing = node.disk.standing
        memory.term = standing.highest_term
        memory.head = memory.accepted = Version(standing.head_term, standing.head_sequence)
