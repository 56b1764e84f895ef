"""One drain: everything decided together, committed once, then answered and published.

Order rule: append while deciding, commit, run `after_commit`, send replies, publish events.
Nothing that a caller could notice happens before the commit. What must change in memory while
deciding, so that later decisions of the same drain see it, puts its undoing into `on_void`.
"""

from collections.abc import Callable, Sequence

from broker.errors import NotPrimaryError, StorageError
from broker.ledger.rows import JournalRow
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from broker.wire.facts import AnyFact
from broker.wire.messages import AnyEvent
from broker.wire.replica import Mark
from broker.wire.roster import BundleBody


class Batch:
    """Collects the facts, effects and events of one drain."""

    def __init__(
        self, ledger: Ledger, now: UnixSeconds, may_append: Callable[[], bool] = lambda: True
    ) -> None:
        self._may_append = may_append
        self._ledger = ledger
        self._now = now
        self._open = False
        self.writes = 0
        self.facts: list[AnyFact] = []
        self.after_commit: list[Callable[[], None]] = []
        self.on_void: list[Callable[[], None]] = []
        self.bundle: tuple[bytes, BundleBody] | None = None
        self.bundle_sequence = 0
        self.installing: BundleBody | None = None
        self.events: list[AnyEvent] = []

    def append(self, fact: AnyFact, actor: str, *, opening: bool = False) -> JournalRow:
        """Add a fact to the journal and fold it, visible to later decisions of this drain.

        Args:
            fact: What happened.
            actor: Who did it.
            opening: It opens a reign: the one moment when a standby writes.

        Raises:
            NotPrimaryError: This node does not serve, so it has no journal of its own to write.
            StorageError: The ledger refused; the whole drain is void.
        """
        if not opening and not self._may_append():
            raise NotPrimaryError("only the serving primary writes the journal")
        self._begin()
        try:
            row = self._ledger.append(fact, actor=actor, now=self._now)
        except ValueError as error:
            # A contradiction is a bug of ours, but no peer may end the broker by finding it.
            raise StorageError(f"the ledger refused a row: {error}") from error
        self.facts.append(fact)
        return row

    def remember(self, request_id: bytes, reply: bytes) -> None:
        """Keep the reply of a request with its facts, for a retry of the same request."""
        self._begin()
        self._ledger.remember(request_id, reply, self._now)

    def keep(self, key: str, value: bytes) -> None:
        """Store a durable value of this node alone (not mesh history)."""
        self._begin()
        self._ledger.local_set(key, value)

    def set_term(self, term: int) -> None:
        """Write every later row of this drain in a higher term."""
        self._begin()
        self._ledger.set_term(term)

    def install(self, rows: Sequence[JournalRow]) -> None:
        """Take over the primary's rows, word for word."""
        self._begin()
        self._ledger.install(rows)

    def fork_at(self, mark: Mark) -> int:
        """Set this node's rows behind `mark` aside; return how many."""
        self._begin()
        return self._ledger.fork_at(mark, self._now)

    def adopted(self, hashes: Sequence[bytes]) -> None:
        """Note that these rows are in the primary's journal."""
        self._begin()
        self._ledger.orphans_adopted(hashes)

    def beside(self, write: Callable[[Ledger], None]) -> None:
        """Write what is of this node alone, with the rest of the drain."""
        self._begin()
        write(self._ledger)

    def save_presence(self, rows: dict[str, bytes]) -> None:
        """Flush presence rows."""
        self._begin()
        self._ledger.presence_save(rows)

    def publish(self, event: AnyEvent) -> None:
        """Send the event after the commit; equal events of one drain are sent once."""
        if event not in self.events:
            self.events.append(event)

    def forget_before(self, moment: UnixSeconds) -> None:
        """Drop remembered replies that nobody will ask for any more."""
        self._begin()
        self._ledger.forget_before(moment)

    def commit(self) -> None:
        """Make the drain durable; raises `StorageError` with everything rolled back."""
        if self._open:
            self._open = False
            self._ledger.commit()

    def rollback(self) -> None:
        """Forget the drain, in the ledger and in memory."""
        if self._open:
            self._open = False
            self._ledger.rollback()
        for undo in reversed(self.on_void):
            undo()

    def _begin(self) -> None:
        self.writes += 1
        if not self._open:
            self._ledger.begin()
            self._open = True
