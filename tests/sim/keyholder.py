"""A simulated node: the production election inside a shell that mirrors the broker's.

What the shell does and in which order is the broker's contract: a promotion is one transaction
with its first row; nothing is sent before it is durable; a step down needs no disk; every write
asks whether the node may still write.
"""

from broker.core.adoption import Orphan, adopt_page
from broker.core.election import PRIMARY, STANDBY
from broker.core.followers import Followers
from broker.core.observation import Observation, Version
from broker.core.phases import Follow, HandOver, Moved, Promote, Turn, Withhold
from broker.errors import StaleTermError
from broker.wire.claims import Claim, PrimaryBeat
from broker.wire.facts import AnyFact, FailoverConfirmed, FailoverDemoted, FailoverPromoted
from broker.wire.stamp import Stamp
from tests.sim.book import Mark, Row, chained
from tests.sim.machine import Machine
from tests.sim.signed import Gossip, Head, verified

BOOT_BITS = 24
HANDOVER_MS = 2_000


class Node(Machine):
    """A key holder, or a member that carries word."""

    # Time.

    def begin(self, *, rebooted: bool) -> None:
        """Start the broker and its loops, each after a random part of its period."""
        self.start(rebooted=rebooted)
        self.world.oracle.started(self)
        net = self.world.net
        period = 1_000 if self.key_holder else 2 * self.rules.timing.tick_ms
        first = net.now + 1 + int(net.rng.random() * period)
        net.at(first, self.index, self.beat_time, self.life)

    def beat_time(self, life: int) -> None:
        """Do what is due every second, on a member every second tick."""
        if life == self.life:
            (self.tick if self.key_holder else self.heartbeat)()

    def tick(self) -> None:
        """Every second of a key holder."""
        life = self.life
        world, now = self.world, self.clock()
        world.net.at(world.net.now + 1_000, self.index, self.beat_time, life)
        self.ticked_ms = world.net.now
        self.ticks += 1
        self.obey(self.election.tick(self.around(), now))
        if life != self.life:
            return
        self._finish_leaving()
        if self.ticks % world.probe_ticks == 0:
            if self.election.serving and not self.halted():
                self.sign_beat()
                self._adopt_own()
            self.probe()
        if self.election.phase in STANDBY and world.net.now >= self.poll_until:
            self.pull()

    def halted(self) -> str:
        """Return why nothing may be written or signed here now."""
        if self.locked:
            return "locked"
        if self.leaving is not None:
            return "leaving"
        return self.election.halted(self.around(), self.clock())

    def sign_beat(self, *, left: bool = False, successor: str = "") -> PrimaryBeat:
        """Sign the next beat."""
        self.beats_signed += 1
        number = (self.disk.boots << BOOT_BITS) + self.beats_signed
        beat = PrimaryBeat("", self.host, self.election.term, number, left, successor)
        self.election.beat(beat)
        self.world.oracle.signed(self, self.election.term)
        return beat

    def gossip(self) -> Gossip:
        """Return the newest statements this node has."""
        election = self.election
        if election.phase in PRIMARY and not self.halted():
            self._show_head()
        return Gossip(tuple(election.beats.values()), self.disk.head)

    def _show_head(self) -> None:
        rows, now = self.disk.book.rows, self.clock()
        expected = now - self.heard_holder <= self.rules.timing.grace_ms
        shown = self.followers.shown(len(rows), now, expected=expected)
        if not shown:
            return
        row = rows[shown - 1]
        version = Version(row.term, row.sequence)
        if self.disk.head is None or version > self.disk.head.version:
            self.disk.head = Head(version, row.hash, self.host)
            self.world.oracle.showed(self, self.disk.head)

    def claim(self) -> Claim:
        """Return what this key holder says of itself."""
        election, book = self.election, self.disk.book
        standby = election.phase in STANDBY
        reason = election.promotable(self.around())
        return Claim(
            host=self.host,
            role=election.role,
            serving=election.serving and self.leaving is None and not self.locked,
            term=election.term,
            highest_term=election.highest_term,
            version_term=book.last_term,
            sequence=len(book.rows),
            hash=f"{book.end[1]:x}",
            promotable=standby and not reason,
            reason=reason,
            called=election.called(self.clock()),
        )

    # Probes between key holders, heartbeats of members.

    def probe(self) -> None:
        """Ask every other key holder at once."""
        self.election.fence.probed()  # the round before this one has ended
        claim, gossip, net = self.claim(), self.gossip(), self.world.net
        for other in self.world.holders:
            if other is not self:
                net.send(
                    self.index, other.index, other.on_hello, self.index, claim, gossip, net.now
                )

    def on_hello(self, sender: int, claim: Claim, gossip: Gossip, asked: int) -> None:
        """Answer a probe."""
        if not self.hear(sender, gossip, claim):
            return
        other, net = self.world.nodes[sender], self.world.net
        answer = (self.index, self.claim(), self.gossip(), asked)
        net.send(self.index, sender, other.on_hello_answer, *answer)

    def on_hello_answer(self, sender: int, claim: Claim, gossip: Gossip, asked: int) -> None:
        """Take in an answer that came within the deadline."""
        if self.world.net.now - asked <= self.deadline_ms:
            self.hear(sender, gossip, claim)

    def heartbeat(self) -> None:
        """Every second tick of a member: carry word to every key holder."""
        world, net = self.world, self.world.net
        net.at(net.now + 2 * self.rules.timing.tick_ms, self.index, self.beat_time, self.life)
        self.election.tick(self.around(), self.clock())
        gossip = world.hostile_gossip(self) or self.gossip()
        for holder in world.holders:
            net.send(self.index, holder.index, holder.on_heartbeat, self.index, gossip, net.now)

    def on_heartbeat(self, sender: int, gossip: Gossip, asked: int) -> None:
        """Answer a member; a serving primary hands out what it may show."""
        if not self.hear(sender, gossip, self.world.hostile_claim(sender)):
            return
        other, net = self.world.nodes[sender], self.world.net
        said, revoked = self.gossip(), None
        head = self.disk.head
        if head is not None and self.serving and head.version.sequence == len(self.disk.book.rows):
            revoked = frozenset(self.disk.revoked)
        net.send(self.index, sender, other.on_heartbeat_answer, self.index, said, revoked, asked)

    def on_heartbeat_answer(
        self, sender: int, gossip: Gossip, revoked: frozenset[str] | None, asked: int
    ) -> None:
        """Follow whoever leads, and keep what was revoked."""
        if self.world.net.now - asked > self.deadline_ms or not self.hear(sender, gossip, None):
            return
        self.world.overheard(self, gossip)
        if revoked is not None:
            self.world.oracle.saw_revoked(self, revoked)
            self.disk.revoked |= revoked

    def hear(self, sender: int, gossip: Gossip, claim: Claim | None) -> bool:
        """Let the election hear a message; return whether this node is still there to answer."""
        world, life = self.world, self.life
        other = world.nodes[sender]
        if other.member_id in self.disk.revoked:
            return False
        believed = verified(gossip)
        if world.expelled:
            believed = believed.without(world.hosts_of(self.disk.revoked))
        head = believed.head
        if other.key_holder and claim is not None:
            self.heard_holder = self.clock()
        seen = Observation(
            other.host, believed.beats, None if head is None else head.version, claim
        )
        crash = world.crash_point(self, claim)
        world.oracle.hears(self, seen)
        effects = self.election.hear(seen, self.clock())
        if head is not None and (self.disk.head is None or head.version > self.disk.head.version):
            self.disk.head = head
        if crash is not None and effects:
            world.crash_unsaved(self, crash)
            return False
        if effects:
            self.obey(effects)
        elif claim is not None and self.election.phase in PRIMARY:
            self._check_fork((claim.sequence, int(claim.hash, 16)), claim.version_term)
        world.oracle.heard(self)
        return life == self.life

    def _check_fork(self, mark: Mark, term: int) -> None:
        """A row of this primary's own term that it does not have: somebody else wrote it."""
        if term == self.election.term and not self.disk.book.has(mark):
            self.obey(self.election.contest("a row of this term is not in this journal"))

    # The election's hands.

    def obey(self, effects: tuple[object, ...]) -> None:
        """Do what the election asks for."""
        for effect in effects:
            match effect:
                case Moved():
                    self._moved(effect)
                case Promote():
                    self._promote(effect)
                case HandOver(successor=successor):
                    self.begin_leaving(successor)
                case Withhold() | Follow():
                    pass
                case _:
                    raise TypeError(effect)

    def _moved(self, moved: Moved) -> None:
        world = self.world
        world.oracle.moved(self, moved)
        world.log(self, f"{moved.before} -> {moved.after}: {moved.turn} {moved.detail}")
        if moved.after not in PRIMARY:
            self.leaving = None
            self.polls.clear()
        if moved.turn is Turn.CONFIRMED and not self.halted():
            self.write(FailoverConfirmed(self.host, moved.detail))
        world.roles_changed()

    def _promote(self, wanted: Promote) -> None:
        world = self.world
        when = world.promotion_crash()
        if when == "before":
            world.log(self, f"crash before promotion to {wanted.term}")
            world.crash_and_return(self)
            return
        world.oracle.promotes(self, wanted)
        world.log(self, f"PROMOTED to {wanted.term}: {wanted.cause}; {wanted.evidence}")
        moved = self.election.promoted(wanted, self.clock())
        fact = FailoverPromoted(
            self.member_id, self.host, wanted.cause, wanted.evidence, wanted.caretaker
        )
        self._append((fact,))
        self.followers = Followers(self.rules.timing.grace_ms, self.clock())
        self._moved(moved)
        if when == "after":
            world.log(self, "crash after promotion")
            world.crash_and_return(self)
            return
        self.leaving = None
        self.sign_beat()
        self.probe()
        self._answer_polls()

    # The journal.

    def write(self, *facts: AnyFact) -> list[Row]:
        """Append a group of facts; the caller asked whether it may."""
        rows = self._append(facts)
        self._answer_polls()
        return rows

    def _append(self, facts: tuple[AnyFact, ...]) -> list[Row]:
        book, rows = self.disk.book, []
        term = self.election.term
        book.writing_term = term
        for fact in facts:
            stamp = Stamp(term, len(book.rows) + 1, self.host, f"{self.disk.incarnation:x}")
            content = self.world.next_content()
            row_hash = chained(book.end[1], stamp, content)
            row = Row(stamp.sequence, term, self.host, stamp.incarnation, fact, row_hash)
            book.append(row)
            rows.append(row)
        self.disk.revoked |= book.revoked
        self.world.oracle.wrote(self, rows)
        return rows

    def pull(self) -> None:
        """Ask the primary for what this journal lacks, or bring home what it lacks."""
        leader = self.election.leader
        if leader is None or leader.host == self.host:
            return
        target = self.world.by_host[leader.host]
        if self.election.phase not in STANDBY:
            return
        net, book = self.world.net, self.disk.book
        self.poll_until = net.now + self.poll_ms + self.deadline_ms
        orphans = book.orphans()
        if orphans:
            brought = tuple(row.orphan() for row in orphans)
            net.send(self.index, target.index, target.on_orphans, self.index, brought)
            self.poll_until = net.now + self.deadline_ms
        net.send(self.index, target.index, target.on_pull, self.index, book.locator())

    def on_pull(self, sender: int, locator: tuple[Mark, ...]) -> None:
        """Note what a follower has; send what it lacks, or let it wait."""
        other, book = self.world.nodes[sender], self.disk.book
        refused = self.halted() if self.leaving is None else ""
        if refused or other.member_id in self.disk.revoked or self.locked:
            return
        common = book.common(locator)
        if common == locator[0]:
            self.followers.note(other.host, common[0], self.clock())
            self._finish_leaving()
        if self.election.phase not in PRIMARY:
            return
        if common[0] < len(book.rows):
            self._send_page(other, common)
        else:
            self.polls[sender] = (locator, self.world.net.now + self.poll_ms)

    def _answer_polls(self) -> None:
        polls, self.polls = self.polls, {}
        for sender, (locator, until) in polls.items():
            if self.world.net.now <= until:
                self._send_page(self.world.nodes[sender], self.disk.book.common(locator))

    def _send_page(self, other: "Node", after: Mark) -> None:
        rows = tuple(self.disk.book.rows[after[0] :])
        head = Head(Version(rows[-1].term, rows[-1].sequence), rows[-1].hash, self.host)
        self.world.net.send(self.index, other.index, other.on_page, self.index, after, rows, head)

    def on_page(self, sender: int, after: Mark, rows: tuple[Row, ...], head: Head) -> None:
        """Append the primary's rows; what it does not have of ours is set aside."""
        election, book, world = self.election, self.disk.book, self.world
        leader = election.leader
        source = world.nodes[sender].host
        self.poll_until = 0
        if election.phase not in STANDBY or leader is None or leader.host != source:
            return
        if not book.has(after) or not head.genuine:
            return
        fresh = [row for row in rows if not book.has((row.sequence, row.hash))]
        if fresh:
            base = fresh[0].sequence - 1
            if base < len(book.rows):
                if election.highest_term <= book.last_term:
                    world.log(self, f"two contents in term {book.last_term}, not installed")
                    return
                gone = book.cut(base)
                world.log(self, f"fork at {base}: {gone} rows set aside")
            for row in fresh:
                book.append(row)
            self.disk.revoked |= book.revoked
            world.oracle.installed(self)
            if self.member_id in self.disk.revoked:
                world.log(self, "learns that it was revoked")
                self._moved(self.election.dismiss())
        self.pull()

    def on_orphans(self, sender: int, orphans: tuple[Orphan, ...]) -> None:
        """Adopt what a former primary wrote on its own."""
        if self.halted() or self.world.nodes[sender].member_id in self.disk.revoked:
            return
        self.disk.book.writing_term = self.election.term
        try:
            facts = adopt_page(orphans, self.disk.book)
        except StaleTermError as error:
            self.world.log(self, f"orphans refused: {error}")
            return
        if facts:
            self.world.log(self, f"adopts {len(facts)} rows")
            self.write(*facts)

    def _adopt_own(self) -> None:
        """Adopt what this primary itself once wrote and set aside: nobody else may have it."""
        orphans = self.disk.book.orphans()
        if orphans:
            self.on_orphans(self.index, tuple(row.orphan() for row in orphans))

    # A planned end.

    def begin_leaving(self, successor: str) -> None:
        """Write the last row and wait for the successor to have it."""
        if self.halted():
            return
        row = self.write(FailoverDemoted(self.host, "asked", successor))[-1]
        self.leaving = (successor, row.sequence, self.world.net.now + HANDOVER_MS)
        self.world.log(self, f"hands over to {successor}")

    def _finish_leaving(self) -> None:
        if self.leaving is None:
            return
        if self.locked or self.election.halted(self.around(), self.clock()):
            self.leaving = None
            return
        successor, sequence, until = self.leaving
        if self.followers.sequence_of(successor) < sequence and self.world.net.now < until:
            return
        beat = self.sign_beat(left=True, successor=successor)
        self._moved(self.election.left(beat, self.clock()))
        self.probe()
