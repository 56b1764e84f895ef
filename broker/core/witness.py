"""What members remember of the journal, against what the journal says.

A member keeps the newest signed head it has seen, and tells it with every heartbeat. A head that
this journal does not have is proof that rows were lost or exchanged: a ledger put back from an old
copy, a disk that lied, a hand in the file. After a change of primaries it may also be a row that
another key holder is about to bring home; so a contradiction counts only when it still is one
after a while.

Nothing here is history: the book is filled by heartbeats within seconds of a start. What was found
out becomes a row of the journal, once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from broker.units import Millis, UnixSeconds
from broker.wire.claims import Head

MEMORY_S = 86_400
"""A member not heard for a day vouches for nothing."""

DOUBTS_MAX = 64
"""Contradictions kept at a time: one is enough to look, and members may lie."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A head that a member remembers and this journal does not have; `told` once it is a row."""

    host: str
    head: Head
    since_ms: Millis
    told: bool = False


class WitnessBook:
    """The newest word of each member on this journal."""

    def __init__(self) -> None:
        self._agreed: dict[str, tuple[str, Head, UnixSeconds]] = {}
        self._doubts: dict[tuple[str, str], Doubt] = {}

    def agree(self, member_id: str, host: str, head: Head, now: UnixSeconds) -> None:
        """Note that a member remembers a row that this journal has."""
        self._agreed[member_id] = (host, head, now)

    def doubt(self, host: str, head: Head, now_ms: Millis) -> bool:
        """Note a contradiction; return whether it is a new one."""
        key = (host, head.hash)
        if key in self._doubts or len(self._doubts) >= DOUBTS_MAX:
            return False
        self._doubts[key] = Doubt(host, head, now_ms)
        return True

    def due(self, now_ms: Millis, grace_ms: int) -> tuple[Doubt, ...]:
        """Return contradictions that were given enough time to resolve and are no row yet."""
        return tuple(
            doubt
            for doubt in self._doubts.values()
            if not doubt.told and now_ms - doubt.since_ms >= grace_ms
        )

    def settle(self, doubt: Doubt, *, real: bool) -> None:
        """Keep a contradiction for good, or drop it: its row came home."""
        key = (doubt.host, doubt.head.hash)
        if real:
            self._doubts[key] = Doubt(doubt.host, doubt.head, doubt.since_ms, told=True)
        else:
            self._doubts.pop(key, None)

    def reopen(self, doubt: Doubt) -> None:
        """Take back what `settle` did: the drain was void."""
        self._doubts[doubt.host, doubt.head.hash] = doubt

    def forget(self, member_id: str) -> None:
        """Forget a member that is none any more."""
        self._agreed.pop(member_id, None)

    def witnesses(self, now: UnixSeconds) -> int:
        """Return how many members vouched for this journal lately."""
        return sum(1 for _, _, at in self._agreed.values() if now - at <= MEMORY_S)

    def contradicted_by(self) -> tuple[Doubt, ...]:
        """Return the contradictions that are real, one for each host, by host."""
        found = {doubt.host: doubt for doubt in self._doubts.values() if doubt.told}
        return tuple(found[host] for host in sorted(found))


def newest(heads: Iterable[Head | None]) -> Head | None:
    """Return the head that is furthest on, by term and then by number."""
    known = [head for head in heads if head is not None]
    return max(known, key=lambda head: (head.term, head.sequence), default=None)
