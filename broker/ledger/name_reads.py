"""Reads of names: whether a name is barred, and whether an invite was made knowing of it."""

from broker.ledger.merge_reads import MergeReads
from broker.ledger.rows import BarRow

# Who got the name last decides, by joining or by a renaming: an earlier one was answered for then.
_BAR = """SELECT b.member_id, b.at, b.reason FROM bars b
    WHERE b.stamp > b.lifted AND b.member_id = (
        SELECT m.member_id FROM members m WHERE m.host = ?
            ORDER BY max(m.stamp, m.name_stamp) DESC LIMIT 1)"""
# A later row of this journal, and not of an earlier term: what came home after a fork stands behind
# rows that its writer never saw.
_POSTDATES = """SELECT 1 FROM invites i JOIN members m ON m.member_id = ?2
    LEFT JOIN bars b ON b.member_id = m.member_id
    WHERE i.invite_id = ?1
        AND i.sequence > max(m.sequence, m.name_sequence, ifnull(b.sequence, 0))
        AND printf('%016d', i.term)
            >= substr(max(m.stamp, m.name_stamp, ifnull(b.stamp, '')), 1, 16)"""
# Names in a list are plain ASCII without quotes, so the quoted name is found as it is written.
_GRANTED = """SELECT m.host FROM invites i JOIN members m ON m.member_id = i.member_id
    WHERE i.sans <> '[]' AND i.state = 'used' AND instr(i.sans, '"' || ?1 || '"')
        AND m.state = 'active' AND m.host <> ?2 LIMIT 1"""


class NameReads(MergeReads):
    """Who had a name before, and what that means for the next one."""

    def bar_of(self, host: str) -> BarRow | None:
        """Return why nobody gets this name without a person's word; None when it is free."""
        row = self._one(_BAR, (host,))
        return None if row is None else BarRow(*row)

    def invite_postdates(self, invite_id: str, member_id: str) -> bool:
        """Was this invite made after that member got its name, and after it was revoked?"""
        return self._one(_POSTDATES, (invite_id, member_id)) is not None

    def granted_to_another(self, name: str, host: str) -> str:
        """Return the active member, not `host`, that got this name by its invite; else nothing."""
        row = self._one(_GRANTED, (name, host))
        return "" if row is None else str(row[0])
