"""The row that a fact stands in, and the stamp under which it counts."""

from dataclasses import dataclass

from broker.wire.codec import decode_fact
from broker.wire.facts import AnyFact, FactAdopted, Origin
from broker.wire.stamp import Stamp, Stamped, stamp_of


@dataclass(frozen=True, slots=True)
class Where:
    """A journal row; `first_sequence` is the row of an adopted fact in the journal it comes from.

    `sequence` is always the row here: certificates are found through it.
    """

    sequence: int
    at: int
    term: int
    node: str
    incarnation: str
    first_sequence: int | None = None

    @property
    def adopted(self) -> bool:
        """Whether another primary wrote the fact first; then its fold tolerates what it finds."""
        return self.first_sequence is not None

    @property
    def stamp(self) -> Stamp:
        """The place of the fact in the order of all facts."""
        sequence = self.sequence if self.first_sequence is None else self.first_sequence
        return Stamp(self.term, sequence, self.node, self.incarnation)

    def adopting(self, origin: Origin) -> "Where":
        """Return where a fact stands that this row adopts."""
        first = (origin.at, origin.term, origin.node, origin.incarnation, origin.sequence)
        return Where(self.sequence, *first)


def fact_in(payload: bytes) -> AnyFact:
    """Return the fact of a journal row, out of its wrapper when the row adopts it."""
    fact = decode_fact(payload)
    return decode_fact(fact.payload) if isinstance(fact, FactAdopted) else fact


def stamped(stamp: Stamp, payload: bytes) -> Stamped:
    """Return the fact of a journal row written at `stamp`, under the stamp that counts."""
    fact = decode_fact(payload)
    if isinstance(fact, FactAdopted):
        return stamp_of(fact.origin), decode_fact(fact.payload)
    return stamp, fact
