"""What a primary writes when a former primary brings home rows of its own.

Every orphan is adopted once, under the stamp it had; who wrote it and in which row stays in the
audit trail. Where an orphan and the ledger contradict each other the merge rules decide, and the
losers are revoked *ahead* of the adopted rows: a member that joins and has lost already is revoked
at birth, so at no row of the journal two members own one name, invite or step.

A page should be judged as a whole. Row by row is as safe, but a join is then judged before a later
row of the page says that it was revoked, and a member may lose its name to somebody already gone.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.core.merge import FactSet
from broker.core.reading import read
from broker.core.settle import Side, Verdict, settle
from broker.errors import StaleTermError
from broker.wire.codec import decode_fact, encode_fact
from broker.wire.facts import AnyFact, FactAdopted, MemberRevoked, MergeConflict, Origin
from broker.wire.replica import OrphanLine
from broker.wire.stamp import Stamped, stamp_of

OF_A_MEMBER = frozenset({"role", "name"})
"""Rules whose subject is a member; people know it by its name."""


@dataclass(frozen=True, slots=True)
class Orphan:
    """A fact of another journal line, with the bytes that its origin's hash covers."""

    origin: Origin
    fact: AnyFact
    payload: bytes

    @classmethod
    def of(cls, line: OrphanLine) -> "Orphan":
        """Return the fact of `line` under its first origin, however often it was adopted.

        Raises:
            MalformedMessageError: The row holds no fact.
            UnknownKindError: The row is of a newer release.
        """
        row = line.line
        origin = Origin(
            term=row.term,
            sequence=line.sequence,
            node=row.node,
            incarnation=row.incarnation,
            at=row.at,
            actor=row.actor,
            hash=line.hash,
        )
        payload = row.payload
        fact = decode_fact(payload)
        while isinstance(fact, FactAdopted):
            origin, payload = fact.origin, fact.payload
            fact = decode_fact(payload)
        return cls(origin, fact, payload)

    @classmethod
    def from_fact(cls, origin: Origin, fact: AnyFact) -> "Orphan":
        """Return `fact` as an orphan of that origin."""
        return cls(origin, fact, encode_fact(fact))


class Known(Protocol):
    """What the ledger of the adopting primary is asked, rows of the open group included."""

    @property
    def term(self) -> int:
        """The term that the primary writes in."""

    def holds_origin(self, origin: Origin) -> bool:
        """Return whether this row is in the journal, as its own or adopted."""

    def facts_about(self, fact: AnyFact) -> Iterable[Stamped]:
        """Return at least the facts that a merge rule could set against `fact`.

        For a join or a renaming the active members of that name; for a redeemed invite or spent
        step its other redeemers; for a certificate those that spent a step before its key did; for
        a role, a renaming or the window the last write and the promotions; and of every member
        concerned its join, its last renaming, its revocation, and the certificate for the key that
        spent the step.
        """

    def review_listed(self, review_id: str) -> bool:
        """Return whether this conflict is on the list, open or closed."""


def adopt_page(orphans: Sequence[Orphan], known: Known) -> tuple[AnyFact, ...]:
    """Return what to append for a page of orphans, in this order; nothing if all are known.

    Args:
        orphans: Oldest first, as they stood in their journal.
        known: The ledger they come home to.

    Raises:
        StaleTermError: An orphan's term is not below the primary's own. It has to take a higher
            term first, or what it writes next could lose against what it adopts now.
    """
    fresh = tuple(_fresh(orphans, known))
    if not fresh:
        return ()
    newest = max(orphan.origin.term for orphan in fresh)
    if newest >= known.term:
        raise StaleTermError(f"rows of term {newest} cannot be adopted in term {known.term}")
    value = _together(fresh, known)
    verdicts = settle(value)
    unlisted = (
        verdict
        for verdict in verdicts
        if verdict.review_id not in value.listed and not known.review_listed(verdict.review_id)
    )
    return (
        *_revocations(value, verdicts),
        *(_adopted(orphan) for orphan in fresh),
        *(_conflict(value, verdict) for verdict in unlisted),
    )


def _fresh(orphans: Iterable[Orphan], known: Known) -> Iterator[Orphan]:
    seen: set[str] = set()
    for orphan in orphans:
        if orphan.origin.hash not in seen and not known.holds_origin(orphan.origin):
            seen.add(orphan.origin.hash)
            yield orphan


def _together(fresh: Sequence[Orphan], known: Known) -> FactSet:
    """Return the orphans with what this ledger knows about the same things."""
    here = {stamp: fact for orphan in fresh for stamp, fact in known.facts_about(orphan.fact)}
    ours = ((stamp, here[stamp]) for stamp in sorted(here))
    return read(ours, ((stamp_of(orphan.origin), orphan.fact) for orphan in fresh))


def _adopted(orphan: Orphan) -> FactAdopted:
    tag = orphan.fact.__struct_config__.tag
    assert isinstance(tag, str)
    return FactAdopted(origin=orphan.origin, event=tag, payload=orphan.payload)


def _revocations(value: FactSet, verdicts: Iterable[Verdict]) -> Iterator[MemberRevoked]:
    first = {verdict.loser: verdict for verdict in reversed(tuple(verdicts)) if verdict.loser}
    for member_id in sorted(first, key=lambda loser: first[loser].lost.stamp):
        verdict = first[member_id]
        yield MemberRevoked(
            member_id=member_id,
            host=_host(value, member_id),
            reason=f"merge: {verdict.rule} {verdict.subject} is older elsewhere",
        )


def _conflict(value: FactSet, verdict: Verdict) -> MergeConflict:
    return MergeConflict(
        review_id=verdict.review_id,
        rule=verdict.rule,
        subject=_host(value, verdict.subject) if verdict.rule in OF_A_MEMBER else verdict.subject,
        kept=_text(value, verdict.kept),
        lost=_text(value, verdict.lost),
    )


def _text(value: FactSet, side: Side) -> str:
    what = side.value
    if side.member_id:
        what = f"member {side.member_id} ({_host(value, side.member_id)})"
    stamp = side.stamp
    place = f"by {stamp.node} in term {stamp.term}, row {stamp.sequence}"
    return f"{what}, {place}" if what else place


def _host(value: FactSet, member_id: str) -> str:
    """Return a member's name; a join may still be on its way while its invite has lost."""
    return value.host(member_id) or "unknown"
