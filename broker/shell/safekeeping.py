"""What a broker remembers of its backups, and of having been restored from one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker.core.collecting import Collecting
from broker.shell.backup_make import BackupMade
from broker.wire.base import Body
from broker.wire.claims import Head
from broker.wire.ids import Hex, Host, Sequence, Term, UnixSeconds


@dataclass(slots=True)
class BackupBook:
    """The backup under way, and what became of the last one.

    `make` writes a file under the name it is given, from a thread; None means the program of its
    own that does it.
    """

    make: Callable[[Path], BackupMade] | None = None
    running: bool = False
    failure: str = ""
    not_before_ms: int = 0


class RestoreMark(Body, frozen=True):
    """Durable: this ledger was restored from a backup made at `created_at`.

    `settled` is set once the members were asked and this node went on, in `new_term`.
    """

    at: UnixSeconds
    created_at: UnixSeconds
    host: Host
    digest: Hex
    term: Term
    sequence: Sequence
    settled: bool = False
    new_term: Term = 0


@dataclass(slots=True)
class RestoreBook:
    """A restored node on its way back to service; see `broker.core.collecting`."""

    mark: RestoreMark
    collecting: Collecting

    def explains(self, head: Head) -> bool:
        """Whether a head that this journal lacks is of the rows that were lost with the disk."""
        mark = self.mark
        return mark.settled and head.sequence > mark.sequence and head.term < mark.new_term

    @property
    def held(self) -> str:
        """Why this node may not lead yet, empty when it may."""
        if self.mark.settled:
            return ""
        return f"it was restored from a backup and {self.collecting.waits_for}"
