"""A simulated machine: its disk, its clocks, its boots and crashes, and what it looks like.

Handlers run as a whole, so a crash falls between two of them, or at one of the named crash points.
"""

from typing import TYPE_CHECKING, Any

import msgspec

from broker.core.election import Election
from broker.core.followers import Followers
from broker.core.observation import Rules, Standing, Surroundings, Version
from broker.units import Millis
from tests.sim.book import Book, Mark
from tests.sim.network import Action
from tests.sim.signed import Head

if TYPE_CHECKING:
    from tests.sim.world import World


def member_id_of(index: int) -> str:
    """Return the member id of a simulated node."""
    return f"a{index:x}"


class Disk(msgspec.Struct):
    """What survives a crash; a copy of it is a backup."""

    book: Book
    standing: Standing
    revoked: set[str]
    head: Head | None
    boots: int
    incarnation: int

    def copy(self) -> "Disk":
        """Return a backup."""
        book = Book(self.book.rows, self.book.archive.values())
        return Disk(book, self.standing, set(self.revoked), self.head, self.boots, self.incarnation)


class Machine:
    """One machine of the mesh: a key holder, or a member that carries word."""

    def __init__(self, world: "World", index: int, disk: Disk, *, key_holder: bool) -> None:
        self.world = world
        self.index = index
        self.host = world.hosts[index]
        self.member_id = member_id_of(index)
        self.key_holder = key_holder
        self.disk = disk
        self.life = 0
        self.up = self.paused = self.locked = self.destroyed = False
        self.unready = ""
        self.boot_ms = 0
        self.ticked_ms = 0
        self.state_changed = 0
        self.backlog: list[tuple[Action, tuple[Any, ...]]] = []
        self.election: Election
        timing = world.rules.timing
        self.deadline_ms = timing.tick_ms * 4 // 5
        self.poll_ms = timing.grace_ms // 3
        self._clear()

    def _clear(self) -> None:
        self.polls: dict[int, tuple[tuple[Mark, ...], int]] = {}
        self.leaving: tuple[str, int, int] | None = None
        self.followers = Followers(self.rules.timing.grace_ms, Millis(0))
        self.beats_signed = 0
        self.ticks = 0
        self.poll_until = 0
        self.heard_holder = 0
        self._around: Surroundings | None = None

    @property
    def rules(self) -> Rules:
        """The settings of the mesh."""
        return self.world.rules

    @property
    def active(self) -> bool:
        """Whether this machine does anything now."""
        return self.up and not self.paused

    @property
    def serving(self) -> bool:
        """Whether this node acts as a primary now."""
        return self.active and self.election.serving

    def clock(self) -> Millis:
        """Return this machine's boot-time clock."""
        return Millis(self.world.net.now - self.boot_ms)

    # Life and death of the process.

    def start(self, *, rebooted: bool) -> None:
        """Start the broker; after a reboot the clock begins anew."""
        net, disk = self.world.net, self.disk
        away = None if rebooted else net.now - self.ticked_ms
        if rebooted:
            self.boot_ms = net.now - 1_000
        disk.boots += 1
        self.life += 1
        self.up = True
        self.state_changed = net.now
        self._clear()
        self.election = Election(self.host, self.rules, disk.standing, self.clock(), away)
        self.followers = Followers(self.rules.timing.grace_ms, self.clock())
        self.backlog.clear()

    def crash(self, standing: Standing | None = None) -> None:
        """Lose everything but the disk; `standing` when the newest one was not durable yet."""
        self.disk.standing = standing or self.election.standing
        self.up = self.paused = False
        self.life += 1
        self.state_changed = self.world.net.now
        self.backlog.clear()
        self.world.roles_changed()

    def around(self) -> Surroundings:
        """Return what the election needs to know of this node."""
        book = self.disk.book
        version = Version(book.last_term, len(book.rows))
        unready = "locked" if self.locked else self.unready
        known, out = self._around, self.disk.revoked
        if known is None or known.version != version or known.unready != unready:
            world = self.world
            left = [node for node in world.nodes if node.member_id not in out]
            holders = tuple(node.host for node in left if node.key_holder)
            known = Surroundings(holders, len(left) - (self in left), version, unready)
            self._around = known
        return known
