"""What ledger tests share: a ledger in a directory, groups, and tampering with its file."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from broker.ledger.rows import JournalRow
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from broker.wire.facts import AnyFact
from tests.ledger.ledger_facts import NOW

APPEND_ONLY = ("journal_is_append_only", "journal_keeps_its_rows")


def opened(home: Path) -> Ledger:
    """Return the ledger of `home`."""
    return Ledger.open(home / "ledger.db", node="atlas")


def write(ledger: Ledger, *facts: AnyFact, now: int = NOW) -> list[JournalRow]:
    """Commit `facts` as one group."""
    ledger.begin()
    rows = [ledger.append(fact, actor="test", now=UnixSeconds(now)) for fact in facts]
    ledger.commit()
    return rows


def write_what_fits(ledger: Ledger, facts: Iterable[AnyFact]) -> int:
    """Commit the facts that do not contradict the ledger; return how many."""
    written = 0
    ledger.begin()
    for fact in facts:
        try:
            ledger.append(fact, actor="test", now=UnixSeconds(NOW + written))
        except ValueError:
            continue
        written += 1
    ledger.commit()
    return written


def tamper(home: Path, *statements: str) -> None:
    """Change the closed ledger behind its back, as somebody with the file can."""
    connection = sqlite3.connect(home / "ledger.db")
    for trigger in APPEND_ONLY:
        connection.execute(f"DROP TRIGGER {trigger}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
