"""What clients were told, one entry per attempt: the other side of every comparison. Sans-IO."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from typing_extensions import override

from tests.faults.harness.caller import Outcome

BULKY = frozenset({"der", "issuing"})
"""Facts that no report needs."""


@dataclass(frozen=True, slots=True)
class Told:
    """One attempt of one operation, and what its client was told.

    Attributes:
        op: Name of the operation; attempts with the same name are retries of one request.
        kind: What was asked: join, renew, revoke, invite, heartbeat, approve, deny, leave, race.
        host: Whom it is about.
        node: Who was asked.
        began_ms: On the boot clock.
        ended_ms: As `began_ms`.
        outcome: `done`, `refused`, `unknown`, or `wrong`.
        code: Of a refusal.
        detail: Why it was not done.
        facts: Of what was done: `serial`, `leaf` (its digest), `key`, `member`, `invite`,
            `approval`, and the certificates themselves (`der`, `issuing`). Known before the
            answer: `key` and `secret` (digest of the invite's) of a join, `by` (who shows its
            certificate) of whatever a member asks.
    """

    op: str
    kind: str
    host: str
    node: str
    began_ms: int
    ended_ms: int
    outcome: Outcome
    code: str = ""
    detail: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether somebody was told that it happened."""
        return self.outcome == "done"

    @override
    def __str__(self) -> str:
        """Return one line for a report."""
        said = self.code or self.outcome
        shown = {name: text for name, text in self.facts.items() if name not in BULKY}
        facts = " ".join(f"{name}={text[:16]}" for name, text in shown.items())
        took = f"{self.began_ms}+{self.ended_ms - self.began_ms}ms"
        return f"{took} {self.op} {self.kind} {self.host} at {self.node}: {said} {facts}".rstrip()


class Record:
    """Everything that was told during the life of one mesh; several clients write at once."""

    def __init__(self, told: Iterable[Told] = ()) -> None:
        self._lock = threading.Lock()
        self._told = list(told)

    def note(self, told: Told) -> None:
        """Add one answer."""
        with self._lock:
            self._told.append(told)

    def all(self) -> tuple[Told, ...]:
        """Return everything so far, in the order of the answers."""
        with self._lock:
            return tuple(self._told)

    def since(self, count: int) -> tuple[Told, ...]:
        """Return what came after the first `count` answers."""
        return self.all()[count:]


def last_words(told: Iterable[Told]) -> dict[str, Told]:
    """Return the answer each operation ended with."""
    return {item.op: item for item in told}
