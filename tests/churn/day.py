"""A day in the life of a small mesh, played in minutes: who does what, and what it leaves.

Atlas and birch hold keys, cedar is a node of a member, and a crowd of members on paper comes and
goes. The number of live members is the same at every mark, so whatever grows from mark to mark is
kept for somebody who is gone.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from broker.errors import MeshError
from broker.shell.batch import Batch
from broker.wire.ids import Service
from broker.wire.policy import PolicyPatch, PolicyView, SetPolicy
from tests.churn import census
from tests.churn.census import Census
from tests.churn.crowd import KEEP, Crowd
from tests.churn.errands import Errands
from tests.shell.mesh_room import Node, PushedClock, Room

STEP_S = 10
HOUR_S = 3600
TIMERS = {
    "failover": {"tick": "10s", "grace": "60s", "stagger": "20s"},
    "heartbeat": {"interval": "10s"},
    "notify": {"webhook": "https://hooks.example.org/certmesh"},
    "backup": {"every": "0s", "keep": 3},
    "renewal": {"attempt_every": "1m", "jitter": 0.0},
    "broker": {"worker_dead_after": "60s"},
}
POLICY = PolicyPatch(approval=True, leaf_lifetime_s=HOUR_S, renew_at=0.5)


Duty = tuple[str, int, int, Callable[[], object]]
"""Name, period and phase in seconds, and what is done."""


class Mark(msgspec.Struct, frozen=True):
    """What was there at one moment, the live population being as at every other mark."""

    hour: float
    tables: dict[str, int]
    rows: dict[str, dict[str, int]]
    files: dict[str, int]
    descriptors: int
    threads: int
    blocks: int
    resident_kb: int
    journal_bytes: int


@dataclass
class Day:
    """The mesh, its crowd, and what is done when."""

    room: Room
    crowd: Crowd
    errands: Errands
    steps: int = 0
    marks: list[Mark] = field(default_factory=list)
    quiet: bool = False
    _healed_at: int = 0
    _down_until: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(cls, home: Path, clock: PushedClock) -> "Day":
        """Make the mesh and fill it."""
        room = Room.open(home, clock, "birch", "cedar", **TIMERS)
        crowd = Crowd(room)
        day = cls(room, crowd, Errands(crowd))
        room.primary().ask(Service.CONSOLE, SetPolicy(POLICY, "ann"), PolicyView)
        room.nominate("birch")
        while len(crowd.live) < KEEP:
            crowd.join()
        return day

    @property
    def duties(self) -> tuple[Duty, ...]:
        """Return all that is done again and again."""
        crowd, errands, minute = self.crowd, self.errands, 60
        return (
            ("beat", 2 * minute, 0, crowd.beat),
            ("sweep", 2 * minute, 10, lambda: errands.work(Service.RENEWAL)),
            ("approve", 3 * minute, 20, lambda: errands.work(Service.APPROVAL)),
            ("notify", 3 * minute, 30, lambda: errands.work(Service.NOTIFY)),
            ("pull", 5 * minute, 40, crowd.pull),
            ("join", 6 * minute, 50, crowd.join),
            ("code", 7 * minute, 70, errands.ask_by_code),
            ("knock", 2 * minute, 80, errands.knock),
            ("revoke", 12 * minute, 100, crowd.revoke),
            ("leave", 12 * minute, 460, crowd.leave),
            ("rename", 20 * minute, 200, crowd.rename),
            ("rejoin", 20 * minute, 700, crowd.rejoin),
            ("void", 10 * minute, 110, crowd.void_invite),
            ("token", 8 * minute, 130, errands.token),
            ("rekey", 2 * minute, 110, errands.rekey),
            ("lists", 15 * minute, 150, errands.lists),
            ("backup", 120 * minute, 1800, errands.backup),
            ("cut", 60 * minute, 2400, self._cut),
            ("step down", 60 * minute, 600, errands.step_down),
            *self._storms,
        )

    @property
    def _storms(self) -> tuple[Duty, ...]:
        """Return what empties memory: only before the first mark, or no growth would ever show."""
        if self.marks:
            return ()
        minute = 60
        return (
            ("restart cedar", 30 * minute, 300, lambda: self._restart("cedar")),
            ("restart birch", 30 * minute, 900, lambda: self._restart("birch")),
            ("restart atlas", 30 * minute, 1000, lambda: self._restart("atlas")),
            ("fail", 30 * minute, 1300, self._fail),
        )

    def run(self, hours: float, marks: int, say: Callable[[Mark], None] | None = None) -> None:
        """Let hours pass; take a mark after each equal part of them."""
        steps = int(hours * HOUR_S // STEP_S)
        for number in range(1, steps + 1):
            self.step()
            if number % (steps // marks) == 0:
                self.mark()
                if say is not None:
                    say(self.marks[-1])

    def quiet_day(self) -> Mark:
        """Let a day and an hour pass in which nobody does anything, and count again."""
        self.room.clock.push(25 * HOUR_S * 1000)
        self.quiet = True
        for _ in range(90):
            self.step()
        self._count()
        return self.marks[-1]

    @property
    def live(self) -> int:
        """How many members there are, the nodes included."""
        return len(self.crowd.live) + len(self.room.nodes)

    def bytes_per_row(self) -> float:
        """Return what a row of the journal costs on disk, its projections included."""
        first, last = self.marks[0], self.marks[-1]
        rows = sum(last.rows[host]["journal"] - first.rows[host]["journal"] for host in last.rows)
        return (last.journal_bytes - first.journal_bytes) / max(1, rows)

    def step(self) -> None:
        """Let ten seconds pass, and do what is due."""
        self.steps += 1
        self.room.clock.push(STEP_S * 1000)
        self.room.step()
        now_s = self.steps * STEP_S
        for host in [h for h, until in self._down_until.items() if now_s >= until]:
            del self._down_until[host]
            self._rise(host)
        if now_s >= self._healed_at:
            self.room.cuts.clear()
        if self.quiet:
            return
        if len([n for n in self.room.nodes.values() if self.room.serves(n)]) != 1:
            return  # nobody to ask for a moment; what is due now is due again soon
        for name, period, phase, act in self.duties:
            if now_s % period == phase % period // STEP_S * STEP_S:
                self.crowd.attempt(name, act)

    def mark(self) -> None:
        """Bring the crowd to its number, let things settle, and count everything."""
        self._settle()
        self._count()

    def _count(self) -> None:
        tables, rows = Census().of_modules(), {}
        for host, node in self.room.nodes.items():
            tables.of(node.office.desk, host)
            rows[host] = census.rows_of(node.office.paths.ledger)
        self.marks.append(
            Mark(
                hour=self.steps * STEP_S / HOUR_S,
                tables=tables.sizes,
                rows=rows,
                files=census.files(self.room.home),
                descriptors=census.descriptors(),
                threads=census.threads(),
                blocks=census.blocks(),
                resident_kb=census.resident_kb(),
                journal_bytes=self._ledger_bytes(),
            )
        )

    def _settle(self) -> None:
        """Bring everybody up and the crowd to its number, then wait until all is quiet."""
        for _ in range(60):
            self.step()
            if not self._down_until and not self.room.cuts and self._in_step():
                break
        while len(self.crowd.live) > KEEP:
            self.crowd.revoke()
        while len(self.crowd.live) < KEEP:
            self.crowd.join()
        self.room.run(2_000)
        for node in self.room.nodes.values():
            node.office.events.clear()  # the room's own memory, not the broker's

    def _in_step(self) -> bool:
        serving = [node for node in self.room.nodes.values() if self.room.serves(node)]
        return len(serving) == 1 and all(self.room.lag(h) == 0 for h in ("atlas", "birch"))

    def _restart(self, host: str) -> None:
        if not self.room[host].down:
            self._rise(host)

    def _rise(self, host: str) -> None:
        """Start a node anew; what ends with a process ends here as well."""
        old = self.room[host].office.desk.state.offloop
        self.room[host].restart()
        old._jobs.put((sys.exit, _nothing))
        os.close(old.descriptor)

    def _cut(self) -> None:
        """Cut the primary off for five minutes: another one leads, and one steps down after it."""
        host = self.room.primary().host
        for other in self.room.nodes:
            if other != host:
                self.room.cut(host, other)
        self._healed_at = self.steps * STEP_S + 300

    def _fail(self) -> None:
        """Take the primary away for five minutes."""
        host = self.room.primary().host
        self.room[host].down = True
        self._down_until[host] = self.steps * STEP_S + 300

    def _ledger_bytes(self) -> int:
        nodes: list[Node] = list(self.room.nodes.values())
        total = 0
        for node in nodes:
            with suppress(MeshError, FileNotFoundError):
                total += node.office.paths.ledger.stat().st_size
        return total

    def close(self) -> None:
        """Close what is open."""
        for node in self.room.nodes.values():
            node.office.ledger.close()


def _nothing(_batch: Batch, _outcome: object) -> None:
    """Nobody waits for the end of a thread."""
