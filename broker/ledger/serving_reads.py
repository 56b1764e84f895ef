"""Reads of what members really serve: whose certificate ends first, and who has trouble with it.

Every query walks a partial index from its beginning and stops; it repeats the index's condition
word for word, or SQLite refuses the plan.
"""

# ruff: noqa: S608 (statements are put together from column lists of this package, never from input)

from broker.ledger.roster_reads import CURRENT, PAIR, RosterReads, pair_of
from broker.ledger.rows import CertificateRow, MemberRow

NEVER = 2**62
"""Behind the end of any certificate."""
COUNTED_MAX = 10_000
"""A third of a millisecond: beyond that nobody cares for the exact number."""

# A member without a certificate has no end; the comparison leaves it out without a scan.
_ENDING = f"""SELECT {PAIR} FROM members m INDEXED BY members_serving {CURRENT}
    WHERE m.state = 'active' AND m.serving_until < ?1 AND m.serving_until >= ?3
        AND (m.serving_until, m.member_id) > (?3, ?4)
    ORDER BY m.serving_until, m.member_id LIMIT ?2"""
_ENDING_COUNT = """SELECT count(*) FROM (SELECT 1 FROM members m INDEXED BY members_serving
    WHERE m.state = 'active' AND m.serving_until < ?1 AND m.serving_until >= 0 LIMIT ?2)"""
_TROUBLED = f"""SELECT {PAIR} FROM members m INDEXED BY members_troubled {CURRENT}
    WHERE m.state = 'active' AND (m.served IN ('stale', 'failed') OR m.last_error <> ''
        OR m.served_serial NOT IN ('', m.current_serial))
    ORDER BY m.current_sequence LIMIT ?1"""

Indexed = (_ENDING, _ENDING_COUNT, _TROUBLED)
"""Queries that `INDEXED BY` pins to a partial index."""


class ServingReads(RosterReads):
    """When what is served ends."""

    def ending(
        self, before: int, limit: int, after: tuple[int, str] = (0, "")
    ) -> list[tuple[MemberRow, CertificateRow | None]]:
        """Return active members whose served certificate ends before `before`, the first first.

        `after` is (serving_until, member_id) of the last row of the page before.
        """
        return [pair_of(row) for row in self._all(_ENDING, (before, limit, *after))]

    def ending_count(self, before: int) -> int:
        """Return how many active members end before `before`, counted up to `COUNTED_MAX`."""
        return self._number(_ENDING_COUNT, (before, COUNTED_MAX))

    def weakest(self) -> tuple[MemberRow, CertificateRow | None] | None:
        """Return the active member whose served certificate ends first."""
        return next(iter(self.ending(NEVER, 1)), None)

    def troubled(self, limit: int) -> list[tuple[MemberRow, CertificateRow | None]]:
        """Return active members that do not serve their newest certificate or fail to renew.

        Whose newest certificate is the oldest comes first; a delivery under way comes last.
        """
        return [pair_of(row) for row in self._all(_TROUBLED, (limit,))]
