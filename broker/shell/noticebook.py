"""What the lookout and the outbox remember between two ticks; all of it can be lost.

Positions begin again, pauses are over, and windows are new after a restart: what must not be
forgotten is in the ledger.
"""

from dataclasses import dataclass, field

from broker.core.telling import Window
from broker.wire.notice import NoticeEvent


@dataclass(slots=True)
class NoticeBook:
    """Positions in the ledger, windows by kind, and rests by notice and by target (boot time).

    `read_to` is the journal row up to which troubles were looked for, None before this reign.
    """

    read_to: int | None = None
    overdue_after: tuple[int, str] = (-1, "")
    reviewed_to: tuple[str, str] = ("", "")
    windows: dict[NoticeEvent, Window] = field(default_factory=dict)
    rests: dict[tuple[str, str], int] = field(default_factory=dict)
    pauses: dict[str, int] = field(default_factory=dict)
    tidy_ms: int = 0
