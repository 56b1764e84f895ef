"""The place of a fact in the order of everything that was ever written in a mesh.

A row that a primary writes has its own term, number, node and incarnation as stamp; a fact that was
adopted from another journal keeps the stamp of its origin. Two rows never share one: a node that
starts again from an old copy of its ledger has a new incarnation.
"""

from broker.wire.base import Body
from broker.wire.facts import AnyFact, Origin
from broker.wire.ids import Hex, Host, Sequence, Term


class Stamp(Body, frozen=True, order=True):
    """Total order of facts: term first, then row, then who wrote it."""

    term: Term
    sequence: Sequence
    node: Host
    incarnation: Hex

    @property
    def text(self) -> str:
        """Return the stamp as a column: texts sort as stamps do.

        Numbers are as wide as the largest one; a blank sorts before everything in a host name.
        """
        return f"{self.term:016d} {self.sequence:016d} {self.node} {self.incarnation}"


Stamped = tuple[Stamp, AnyFact]
"""A fact under its stamp; never `FactAdopted`, whose content has a stamp of its own."""


def stamp_of(origin: Origin) -> Stamp:
    """Return the stamp of an adopted fact."""
    return Stamp(origin.term, origin.sequence, origin.node, origin.incarnation)
