"""Facts of the succession and of the merge after a fork."""

from broker.wire.base import Body, Fact
from broker.wire.ids import (
    Hex,
    Host,
    Sequence,
    Term,
    Text,
    UnixSeconds,
)


class StandbyNominated(Fact, frozen=True, tag="standby.nominated"):
    """The primary offers this member the issuing key; it is no key holder yet."""

    member_id: Hex
    host: Host


class StandbyReady(Fact, frozen=True, tag="standby.ready"):
    """The nominated member has the key and proved that it fits."""

    member_id: Hex
    host: Host


class StandbyRemoved(Fact, frozen=True, tag="standby.removed"):
    """A nomination or a standby's role ended."""

    member_id: Hex
    host: Host
    reason: Text


class FailoverPromoted(Fact, frozen=True, tag="failover.promoted"):
    """First row of a term: who writes from now on, why, and on what evidence.

    Every other primary of the roster becomes a standby with this row.
    """

    member_id: Hex
    host: Host
    cause: Text
    evidence: Text
    caretaker: bool = False


class FailoverConfirmed(Fact, frozen=True, tag="failover.confirmed"):
    """A caretaker has full powers from now on: an operator said so, or the peer was seen."""

    host: Host
    reason: Text


class FailoverDemoted(Fact, frozen=True, tag="failover.demoted"):
    """Last row of a planned end: this primary stepped down by itself."""

    host: Host
    cause: Text
    successor: Text


class Origin(Body, frozen=True):
    """Where a fact was first written: its stamp, and the row that holds it there."""

    term: Term
    sequence: Sequence
    node: Host
    incarnation: Hex
    at: UnixSeconds
    actor: Text
    hash: Hex


class FactAdopted(Fact, frozen=True, tag="merge.adopted"):
    """A fact of another primary's journal after a fork, under its own stamp."""

    origin: Origin
    event: Text
    payload: bytes


class MergeConflict(Fact, frozen=True, tag="merge.conflict"):
    """A merge rule decided between two facts; a person should know."""

    review_id: Hex
    rule: Text
    subject: Text
    kept: Text
    lost: Text


class MergeReviewed(Fact, frozen=True, tag="merge.reviewed"):
    """A person looked at a conflict."""

    review_id: Hex
