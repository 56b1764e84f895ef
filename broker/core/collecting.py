"""What a restored node must learn from the living before it may lead. Pure: time is pushed in.

A backup is the past. Members know what came after it: who led, and whom they revoked. So each of
them is asked for its newest signed bundle, and nothing is served or signed before every one has
answered or was silent in several rounds.

- Nobody but this node itself led after the backup was made: it goes on, in a higher term.
- Another node leads and answers: this node never becomes a second primary.
- Another node led, and is silent: nobody here can tell a dead one from a cut cable. A person can.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from broker.units import Millis
from broker.wire.roster import BundleBody

ROUNDS = 3
PAUSE_MS = 5_000
"""Between two questions to a silent node; three rounds take a quarter of a minute or so."""
LATER_MS = 30_000
"""Once all had their turn, a node that leads elsewhere is asked this often if it still does."""
ASKED_AT_ONCE = 64

Verdict = Literal["asking", "go", "led", "silent"]


class Reign(NamedTuple):
    """The newest word on who leads; ordered by term, then by row."""

    term: int
    sequence: int
    primary: str


@dataclass(slots=True)
class _Turn:
    """One node's answers: `reign` is what it said last, None when it did not answer last time."""

    tries: int = 0
    asked_ms: Millis | None = None
    answered: bool = False
    reign: Reign | None = None


@dataclass(slots=True)
class Collecting:
    """Who was asked, who answered, and what they know.

    Args:
        host: This node.
        own: Where the restored journal ends, and who led then.
    """

    host: str
    own: Reign
    members: set[str] = field(default_factory=set)
    serials: set[str] = field(default_factory=set)
    others: tuple[str, ...] = ()
    _turns: dict[str, _Turn] = field(default_factory=dict)
    _newest: Reign | None = None

    @property
    def newest(self) -> Reign:
        """The newest reign that anybody has told of."""
        return max(self.own, self._newest or self.own)

    @property
    def asked(self) -> int:
        """How many nodes were asked."""
        return len(self.others)

    @property
    def silent(self) -> tuple[str, ...]:
        """Nodes that had their rounds and never answered."""
        return tuple(host for host in self.others if not self._turn(host).answered)

    @property
    def verdict(self) -> Verdict:
        """Return what follows from the answers so far."""
        if any(not self._is_done(host) for host in self.others):
            return "asking"
        leader = self.newest.primary
        if leader == self.host:
            return "go"
        reign = self._turn(leader).reign
        leads = reign is not None and reign.primary == leader and reign.term >= self.newest.term
        return "led" if leads else "silent"

    @property
    def waits_for(self) -> str:
        """What a person should know, as the second half of a sentence."""
        leader, term = self.newest.primary or "somebody", self.newest.term
        match self.verdict:
            case "asking":
                done = sum(1 for host in self.others if self._is_done(host))
                return f"asks the members what they know: {done} of {len(self.others)} so far"
            case "led":
                return f"{leader} leads in term {term}: this node must not lead too"
            case "silent":
                return f"{leader}, which led in term {term}, does not answer"
            case _:
                return "goes on in a moment"

    def expect(self, hosts: tuple[str, ...]) -> None:
        """Name the nodes to be asked, this one left out; ones named before are not forgotten."""
        self.others = tuple(dict.fromkeys(h for h in (*self.others, *hosts) if h != self.host))

    def due(self, now_ms: Millis) -> tuple[str, ...]:
        """Return whom to ask now."""
        asking = self.verdict == "asking"
        pool = [h for h in self.others if not self._is_done(h)] if asking else self._watched()
        pause_ms = PAUSE_MS if asking else LATER_MS
        ready = [h for h in pool if self._rested(h, now_ms, pause_ms)][:ASKED_AT_ONCE]
        for host in ready:
            self._turns.setdefault(host, _Turn()).asked_ms = now_ms
        return tuple(ready)

    def heard(self, host: str, body: BundleBody) -> None:
        """Take in the verified bundle of a node."""
        turn = self._turns.setdefault(host, _Turn())
        turn.tries, turn.answered = turn.tries + 1, True
        turn.reign = Reign(body.head.term, body.head.sequence, body.head.primary)
        self._newest = max(turn.reign, self._newest or turn.reign)
        self.members.update(body.revoked_members)
        self.serials.update(body.revoked_serials)
        self.expect(tuple(holder.endpoint.host for holder in body.key_holders))

    def unheard(self, host: str) -> None:
        """Note that a node did not answer, or not with a bundle of this mesh."""
        turn = self._turns.setdefault(host, _Turn())
        turn.tries, turn.reign = turn.tries + 1, None

    def _watched(self) -> list[str]:
        leader = self.newest.primary
        return [leader] if leader in self.others else []

    def _is_done(self, host: str) -> bool:
        turn = self._turn(host)
        return turn.answered or turn.tries >= ROUNDS

    def _rested(self, host: str, now_ms: Millis, pause_ms: int) -> bool:
        asked_ms = self._turn(host).asked_ms
        return asked_ms is None or now_ms - asked_ms >= pause_ms

    def _turn(self, host: str) -> _Turn:
        return self._turns.get(host) or _Turn()


def revoked_here(collecting: Collecting, serials: Mapping[str, str]) -> frozenset[str]:
    """Return the members that the living call revoked: by their id, or by a serial of theirs.

    Args:
        collecting: What was learnt.
        serials: Member id by serial, of serials that this ledger knows.
    """
    by_serial = {serials[serial] for serial in collecting.serials if serial in serials}
    return frozenset(collecting.members | by_serial)
