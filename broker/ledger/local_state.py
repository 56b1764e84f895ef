"""State of this node that is not history: small values, remembered replies, presence.

Inside an open transaction these join it; outside, each is durable by itself.
"""

from collections.abc import Mapping, Sequence

from broker.ledger.file import INCARNATION_KEY, TERM_KEY
from broker.ledger.store import Store

_RESERVED = "ledger."
_SET = """INSERT INTO local VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2"""


class LocalState(Store):
    """Reads and writes beside the journal."""

    @property
    def incarnation(self) -> str:
        """Random name of this copy of the ledger, in every row it writes."""
        return (self.local_get(INCARNATION_KEY) or b"").decode()

    @property
    def term(self) -> int:
        """The current term, in every row written from now on."""
        return self._term

    def set_term(self, term: int) -> None:
        """Move to a higher term, durably; the same one again is harmless.

        Raises:
            ValueError: A lower term: terms never go back.
        """
        if term < self._term:
            raise ValueError(f"term={term} is behind current={self._term}")
        if term == self._term:
            return
        with self._writing() as connection:
            connection.execute(_SET, (TERM_KEY, str(term).encode()))
            self._term = term

    def local_get(self, key: str) -> bytes | None:
        """Return the value kept under `key`."""
        row = self._one("SELECT value FROM local WHERE key = ?", (key,))
        return None if row is None else bytes(row[0])

    def local_set(self, key: str, value: bytes) -> None:
        """Keep `value` under `key`; names that start with "ledger." belong to the ledger."""
        if key.startswith(_RESERVED):
            raise ValueError(f"key={key!r} is reserved")
        with self._writing() as connection:
            connection.execute(_SET, (key, value))

    def remembered(self, request_id: bytes) -> bytes | None:
        """Return the reply that was committed for this request."""
        row = self._one("SELECT reply FROM requests WHERE request_id = ?", (request_id,))
        return None if row is None else bytes(row[0])

    def remember(self, request_id: bytes, reply: bytes, now: int) -> None:
        """Keep the reply with the commit, so that a retry gets the first answer.

        The first reply stays: remembering the same request again changes nothing.
        """
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO requests VALUES (?, ?, ?) ON CONFLICT (request_id) DO NOTHING",
                (request_id, now, reply),
            )

    def forget_before(self, then: int) -> None:
        """Drop replies remembered before `then`."""
        with self._writing() as connection:
            connection.execute("DELETE FROM requests WHERE at < ?", (then,))

    def presence_load(self) -> dict[str, bytes]:
        """Return the presence last saved, by member id."""
        return dict(self._all("SELECT member_id, body FROM presence"))

    def presence_forget(self, member_ids: Sequence[str]) -> None:
        """Drop the presence of these members."""
        with self._writing() as connection:
            connection.executemany(
                "DELETE FROM presence WHERE member_id = ?", [(each,) for each in member_ids]
            )

    def presence_save(self, changed: Mapping[str, bytes]) -> None:
        """Save the presence of these members; the others keep theirs."""
        with self._writing() as connection:
            connection.executemany(
                """INSERT INTO presence VALUES (?1, ?2)
                   ON CONFLICT (member_id) DO UPDATE SET body = ?2""",
                changed.items(),
            )
