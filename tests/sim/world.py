"""A whole mesh in one process: nodes, network, faults and the oracle that watches them.

Everything follows from one seed. `World.run` plays the faults, heals everything and lets the mesh
settle; the oracle raises `Violation` at the first step that breaks an invariant.
"""

from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from broker.core.election import PRIMARY
from broker.core.observation import Rules, Standing, Timing
from broker.core.phases import Phase
from broker.wire.claims import Claim
from broker.wire.facts import MemberJoined, MemberRevoked
from broker.wire.ids import Role
from broker.wire.node import Endpoint
from broker.wire.stamp import Stamp
from tests.sim.book import Book, Row, chained
from tests.sim.hostile import Hostile
from tests.sim.keyholder import Node
from tests.sim.machine import Disk, member_id_of
from tests.sim.network import NEVER, WORLD, Action, Network
from tests.sim.oracle import Oracle
from tests.sim.signed import Gossip
from tests.sim.workload import Workload

NAMES = "abcdefgh"
LOG_LINES = 4_000
NOWHERE = Endpoint("nowhere", (), 0, 0, "nowhere")


@dataclass(frozen=True)
class Shape:
    """How a world begins.

    Args:
        holders: Key holders; the first one is the primary unless `first` names another.
        members: Nodes that carry word.
        rules: Settings.
        hostile: Whether one member is in the hands of somebody else.
        first: Which key holder begins as primary.
    """

    holders: int
    members: int
    rules: Rules
    hostile: bool = False
    first: int = 0


@dataclass
class Share:
    """Virtual time with two primaries that serve at once."""

    since: int = 0
    double: bool = False
    double_ms: int = 0
    total_ms: int = 0
    counting: bool = field(default=True)


DEFAULT_RULES = Rules(Timing(5_000, 30_000, 10_000))


class World:
    """One mesh."""

    def __init__(self, seed: int, shape: Shape) -> None:
        self.seed = seed
        self.shape = shape
        self.rules = shape.rules
        self.rng = Random(seed)
        count = shape.holders + shape.members
        self.net = Network(self.rng, count)
        self.hosts = list(NAMES[:count])
        self.holder_hosts = tuple(self.hosts[: shape.holders])
        self.probe_ticks = max(1, self.rules.timing.tick_ms // 1_000)
        self.lines: list[str] = []
        self.share = Share()
        self.crash_odds = 0.0
        self.forced = False
        self.era = 0
        self.expelled: list[Node] = []
        self._content = 0
        self.nodes: list[Node] = []
        self.oracle = Oracle(self)
        self._found(shape)
        self.holders = [node for node in self.nodes if node.key_holder]
        self.members = [node for node in self.nodes if not node.key_holder]
        self.by_host = {node.host: node for node in self.nodes}
        self.hostile = Hostile(self) if shape.hostile and self.members else None
        self.workload = Workload(self)
        for node in self.nodes:
            node.begin(rebooted=True)

    def _found(self, shape: Shape) -> None:
        first = self.hosts[shape.first]
        rows = self._founding_rows(first)
        for index in range(len(self.hosts)):
            holder = index < shape.holders
            phase = Phase.FOLLOWING if holder else Phase.MEMBER
            standing = Standing(phase, 0, 1, first, 1)
            if index == shape.first:
                standing = Standing(Phase.SERVING, 1, 1, first, 1)
            disk = Disk(Book(rows), standing, set(), None, 0, index + 1)
            self.nodes.append(Node(self, index, disk, key_holder=holder))

    def _founding_rows(self, first: str) -> list[Row]:
        rows: list[Row] = []
        for index, host in enumerate(self.hosts):
            role: Role = "standby" if host in self.holder_hosts else "member"
            role = "primary" if host == first else role
            fact = MemberJoined(member_id_of(index), host, (), role, NOWHERE, "init")
            stamp = Stamp(1, len(rows) + 1, first, "1")
            before = rows[-1].hash if rows else 0
            row_hash = chained(before, stamp, self.next_content())
            rows.append(Row(stamp.sequence, 1, first, "1", fact, row_hash))
        return rows

    def next_content(self) -> int:
        """Return a number for what is written next."""
        self._content += 1
        return self._content

    # Running.

    def run_until(self, until: int) -> None:
        """Play events up to a time."""
        net, nodes = self.net, self.nodes
        events = net.events
        while events and events[0][0] <= until:
            _, _, index, action, args = net.pop()
            if index >= 0:
                node = nodes[index]
                if not node.up:
                    continue
                if node.paused:
                    node.backlog.append((action, args))
                    continue
            action(*args)
        net.now = until

    def later(self, when: int, action: Action, *args: Any) -> None:
        """Let a fault happen, or end, unless everything has healed by then."""
        self.net.at(when, WORLD, self._if_unhealed, self.era, action, args)

    def _if_unhealed(self, era: int, action: Action, args: tuple[Any, ...]) -> None:
        if era == self.era:
            action(*args)

    def log(self, node: Node | None, text: str) -> None:
        """Note what happened, for the tail that a failure prints."""
        who = node.host if node else "-"
        self.lines.append(f"{self.net.now / 1000:8.2f} {who} {text}")
        if len(self.lines) > LOG_LINES:
            del self.lines[: LOG_LINES // 2]

    def roles_changed(self) -> None:
        """Account the time with two serving primaries."""
        share, now = self.share, self.net.now
        if share.counting:
            share.double_ms += now - share.since if share.double else 0
            share.total_ms += now - share.since
        share.since = now
        share.double = sum(node.serving for node in self.holders) > 1

    # Faults that a node's shell asks about.

    def crash_point(self, node: Node, claim: Claim | None) -> Standing | None:
        """Return what would be lost if this node died before a step down is durable."""
        if not self.crash_odds or claim is None or node.election.phase not in PRIMARY:
            return None
        if claim.highest_term <= node.election.term or self.rng.random() > self.crash_odds:
            return None
        return node.election.standing

    def promotion_crash(self) -> str:
        """Return whether a promotion is cut short, and where."""
        if not self.crash_odds or self.rng.random() > self.crash_odds:
            return ""
        return "before" if self.rng.random() < 0.5 else "after"

    def crash_unsaved(self, node: Node, standing: Standing) -> None:
        """Kill a node after it decided and before that was durable."""
        self.log(node, "crash before a step down was durable")
        self.oracle.forgets(node, standing.highest_term)
        node.crash(standing)
        self.later(self.net.now + self.rng.randint(500, 20_000), self.restart, node, False)

    def crash_and_return(self, node: Node) -> None:
        """Kill a node and start it again soon."""
        node.crash()
        self.later(self.net.now + self.rng.randint(500, 60_000), self.restart, node, False)

    def hostile_gossip(self, node: Node) -> Gossip | None:
        """Return what a hostile member says instead of the truth."""
        hostile = self.hostile
        return hostile.gossip() if hostile and hostile.node is node else None

    def overheard(self, node: Node, gossip: Gossip) -> None:
        """Let a hostile member record what it is told."""
        if self.hostile and self.hostile.node is node:
            self.hostile.overhears(gossip)

    def hostile_claim(self, _sender: int) -> Claim | None:
        """Return the claim of a member: none, because nobody asks a member for one."""
        return None

    # Faults.

    def kill(self, node: Node) -> None:
        """Take the power away."""
        if node.up:
            self.log(node, "crash")
            node.crash()

    def restart(self, node: Node, rebooted: bool) -> None:  # noqa: FBT001 (an event's argument)
        """Start a dead node again."""
        if not node.up and not node.destroyed:
            self.log(node, "starts" + (" after a reboot" if rebooted else ""))
            node.begin(rebooted=rebooted)
            self.roles_changed()

    def pause(self, node: Node) -> None:
        """Stop a node as SIGSTOP or a suspend does: messages wait in its buffers."""
        if node.active:
            self.log(node, "paused")
            node.paused = True
            node.state_changed = self.net.now
            self.roles_changed()

    def resume(self, node: Node) -> None:
        """Let a paused node go on: what waited comes in any order, before or after its tick."""
        if not node.paused:
            return
        self.log(node, f"resumes with {len(node.backlog)} events")
        node.paused = False
        node.state_changed = self.net.now
        backlog, node.backlog = node.backlog, []
        self.rng.shuffle(backlog)
        for action, args in backlog:
            self.net.at(self.net.now, node.index, action, *args)
        self.roles_changed()

    def set_lock(self, node: Node, *, locked: bool) -> None:
        """Lock or unlock the issuing key."""
        if node.up and node.locked != locked:
            self.log(node, "locked" if locked else "unlocked")
            node.locked = locked
            if node.active:
                node.obey(node.election.tick(node.around(), node.clock()))

    def restore(self, node: Node, backup: Disk) -> None:
        """Put an old copy of its disk back: a new incarnation, which knows that it is one."""
        if node.destroyed:
            return
        if node.up:
            node.crash()
        lost = node.disk
        incarnation = 1000 + self.next_content()
        standing = msgspec.structs.replace(backup.standing, contested=True)
        node.disk = backup.copy()
        node.disk.standing, node.disk.incarnation = standing, incarnation
        self.log(node, f"restored from a backup of row {len(node.disk.book.rows)}")
        self.oracle.lost_disk(node, lost)

    def expel(self, by: Node, node: Node) -> None:
        """Revoke a key holder: nobody who knows it talks to it any more."""
        self.log(by, f"revokes the key holder {node.host}")
        self.expelled.append(node)
        by.write(MemberRevoked(node.member_id, node.host, "stolen"))

    def hosts_of(self, members: set[str]) -> set[str]:
        """Return the simulated nodes among some members."""
        return {node.host for node in self.expelled if node.member_id in members}

    def is_out(self, node: Node) -> bool:
        """Whether a node is lost, or revoked as far as any key holder knows."""
        return node.destroyed or (
            node in self.expelled
            and any(
                node.member_id in other.disk.revoked
                for other in self.holders
                if other is not node and not other.destroyed
            )
        )

    def destroy(self, node: Node) -> None:
        """Lose a machine for ever."""
        if node.destroyed:
            return
        if node.up:
            node.crash()
        self.log(node, "destroyed")
        node.destroyed = True
        lost, node.disk = node.disk, Disk(Book(), node.disk.standing, set(), None, 0, 0)
        self.oracle.lost_disk(node, lost)

    def heal(self) -> None:
        """End every fault but destruction."""
        net = self.net
        self.log(None, "everything heals")
        for source in range(len(self.nodes)):
            for target in range(len(self.nodes)):
                if net.cut[source][target]:
                    net.set_cut(source, target, -net.cut[source][target])
        net.set_weather(0.0, 0.0, 40)
        self.era += 1
        self.crash_odds = 0.0
        for node in self.nodes:
            self.restart(node, rebooted=True)
            self.resume(node)
            node.unready = ""
            self.set_lock(node, locked=False)

    def clean_ms(self, one: Node, other: Node) -> int:
        """Return for how long nothing stood between two nodes, negative if something does."""
        if not one.active or not other.active:
            return -1
        since = self.net.link_clean_since(one.index, other.index)
        if since == NEVER:
            return -1
        return self.net.now - max(since, one.state_changed, other.state_changed)
