"""Reads of the merge: what is known about the things an orphan speaks of, and the open reviews.

Facts come from the journal under the stamp that counts, so the merge rules see the same values
whether a row was written here or adopted. These reads serve a page of orphans after a fork; none is
on the way of an ordinary request.
"""

from collections.abc import Iterator
from typing import Any

from broker.ledger.rows import ReviewRow
from broker.ledger.store import Parameters, Store
from broker.ledger.where import stamped
from broker.wire import facts
from broker.wire.facts import AnyFact, Origin
from broker.wire.stamp import Stamp, Stamped

_ROW = "SELECT term, sequence, node, incarnation, payload FROM journal WHERE sequence = ?"
_OWN = "SELECT hash FROM journal WHERE sequence = ?"
_ADOPTED = "SELECT 1 FROM adopted WHERE origin_hash = ?"
_ACTIVE_OF_HOST = "SELECT member_id FROM members WHERE host = ? AND state = 'active'"
_JOINED = "SELECT sequence FROM members WHERE member_id = ?"
_NAMED = "SELECT name_sequence FROM members WHERE member_id = ? AND name_sequence > 0"
_REVOKED = "SELECT sequence FROM revocations WHERE member_id = ?"
_REDEEMED = "SELECT used_sequence, member_id FROM invites WHERE invite_id = ? AND state = 'used'"
_SPENDINGS = """SELECT sequence, stamp, key_hash FROM totp_steps WHERE step = ?1 UNION ALL
    SELECT sequence, stamp, key_hash FROM totp_losers WHERE step = ?1"""
_STEPS_LOST = "SELECT step FROM totp_losers WHERE key_hash = ?"
# From the row of the step on, because there is no index by keys: the certificate of a direct join
# is two rows further, that of an approved one as far as the person took.
_SPENDER = """SELECT c.sequence, c.member_id FROM certificates c
    JOIN members m ON m.member_id = c.member_id
    WHERE c.sequence > ? AND c.key_hash = ? AND m.stamp > ? ORDER BY m.stamp, c.sequence LIMIT 1"""
_WINDOW = "SELECT enrollment_sequence FROM mesh WHERE id = 1"
_POLICY = "SELECT policy_sequence FROM mesh WHERE id = 1 AND policy_sequence > 0"
_CODES = "SELECT totp_sequence FROM mesh WHERE id = 1 AND totp_sequence > 0"
_ROLE = "SELECT role_sequence FROM members WHERE member_id = ?"
_PROMOTIONS = "SELECT sequence FROM promotions ORDER BY stamp"
_REVIEW = "SELECT review_id, rule, subject, kept, lost, at, sequence, open FROM reviews"
_OPEN_REVIEWS = f"{_REVIEW} INDEXED BY reviews_open WHERE open = 1 ORDER BY sequence LIMIT ?"
_OPEN_COUNT = "SELECT count(*) FROM reviews INDEXED BY reviews_open WHERE open = 1"


_REGISTERS: dict[type, str] = {
    facts.EnrollmentOpened: _WINDOW,
    facts.EnrollmentClosed: _WINDOW,
    facts.PolicyChanged: _POLICY,
    facts.TOTPRotated: _CODES,
}
"""Where the row of the last write of each register is found."""


class MergeReads(Store):
    """What an adopting primary asks."""

    def holds_origin(self, origin: Origin) -> bool:
        """Return whether this row is in the journal, as its own or adopted."""
        return self.holds_row(origin.sequence, origin.hash)

    def holds_row(self, sequence: int, row_hash: str) -> bool:
        """Return whether the row with this hash (hex) is in the journal, own or adopted."""
        if self.hash_at(sequence) == row_hash:
            return True
        return self._one(_ADOPTED, (row_hash,)) is not None

    def hash_at(self, sequence: int) -> str:
        """Return the hash (hex) of a row of this journal, empty where it has none."""
        own = self._one(_OWN, (sequence,))
        return "" if own is None else bytes(own[0]).hex()

    def facts_about(self, fact: AnyFact) -> list[Stamped]:
        """Return the facts that a merge rule could set against `fact`, in no certain order."""
        return list(self._about(fact))

    def review_listed(self, review_id: str) -> bool:
        """Return whether this conflict is on the list, open or closed."""
        return self._one(f"{_REVIEW} WHERE review_id = ?", (review_id,)) is not None

    def reviews(self, limit: int) -> list[ReviewRow]:
        """Return conflicts that nobody has looked at, oldest first."""
        rows = self._all(_OPEN_REVIEWS, (limit,))
        return [_review(row) for row in rows]

    def review_count(self) -> int:
        """Return how many conflicts nobody has looked at."""
        return self._number(_OPEN_COUNT)

    def _fact_at(self, sequence: int) -> Stamped:
        row = self._one(_ROW, (sequence,))
        assert row is not None, f"row {sequence} is projected but not in the journal"
        return stamped(Stamp(*row[:4]), row[4])

    def _facts_at(self, statement: str, parameters: Parameters = ()) -> Iterator[Stamped]:
        for row in self._all(statement, parameters):
            yield self._fact_at(row[0])

    def _member(self, member_id: str) -> Iterator[Stamped]:
        yield from self._facts_at(_JOINED, (member_id,))
        yield from self._facts_at(_NAMED, (member_id,))
        yield from self._facts_at(_REVOKED, (member_id,))

    def _about(self, fact: AnyFact) -> Iterator[Stamped]:
        match fact:
            case facts.MemberJoined():
                yield from self._about_join(fact)
            case facts.MemberRenamed():
                yield from self._about_renaming(fact)
            case facts.InviteUsed():
                yield from self._about_invite(fact)
            case facts.TOTPStepUsed():
                yield from self._about_step(fact.step)
            case facts.CertificateIssued() | facts.CertificateRenewed():
                yield from self._about_certificate(fact)
            case (
                facts.StandbyNominated()
                | facts.StandbyReady()
                | facts.StandbyRemoved()
                | facts.FailoverPromoted()
            ):
                yield from self._about_role(fact.member_id)
            case _:
                yield from self._about_register(fact)

    def _about_join(self, fact: facts.MemberJoined) -> Iterator[Stamped]:
        yield from self._facts_at(_REVOKED, (fact.member_id,))
        for (member_id,) in self._all(_ACTIVE_OF_HOST, (fact.host,)):
            yield from self._member(member_id)

    def _about_renaming(self, fact: facts.MemberRenamed) -> Iterator[Stamped]:
        yield from self._member(fact.member_id)
        yield from self._facts_at(_PROMOTIONS)
        for (member_id,) in self._all(_ACTIVE_OF_HOST, (fact.host,)):
            yield from self._member(member_id)

    def _about_invite(self, fact: facts.InviteUsed) -> Iterator[Stamped]:
        yield from self._member(fact.member_id)
        for sequence, member_id in self._all(_REDEEMED, (fact.invite_id,)):
            yield self._fact_at(sequence)
            yield from self._member(member_id)

    def _about_step(self, step: int) -> Iterator[Stamped]:
        for sequence, stamp, key_hash in self._all(_SPENDINGS, (step,)):
            yield self._fact_at(sequence)
            for certificate, member_id in self._all(_SPENDER, (sequence, key_hash, stamp)):
                yield self._fact_at(certificate)
                yield from self._member(member_id)

    def _about_certificate(
        self, fact: facts.CertificateIssued | facts.CertificateRenewed
    ) -> Iterator[Stamped]:
        lost = self._all(_STEPS_LOST, (fact.key_hash,))
        if lost:
            yield from self._member(fact.member_id)
        for (step,) in lost:
            yield from self._about_step(step)

    def _about_register(self, fact: AnyFact) -> Iterator[Stamped]:
        """Return the last write of what the mesh has one of."""
        if (statement := _REGISTERS.get(type(fact))) is not None:
            yield from self._facts_at(statement)
            yield from self._facts_at(_PROMOTIONS)

    def _about_role(self, member_id: str) -> Iterator[Stamped]:
        yield from self._member(member_id)
        yield from self._facts_at(_ROLE, (member_id,))
        yield from self._facts_at(_PROMOTIONS)


def _review(row: tuple[Any, ...]) -> ReviewRow:
    values = (*row[:7], bool(row[7]))
    return ReviewRow(*values)
