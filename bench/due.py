"""What finding due members costs in a ledger of a million."""

import contextlib
import sqlite3
import time
from pathlib import Path

from bench.lone_broker import lone_home
from bench.report import Result, result
from broker.clock import wall_s
from broker.ledger.sqlite import Ledger
from broker.shell.dueness import DUE_PAGE
from broker.units import UnixSeconds

MEMBERS = 1_000_000
DUE = 10_000
PAGE = DUE_PAGE
LOOKS = 300
WARM_UP = 5
FIRST = 10_000_000
"""Sequences of the rows that are not due: nobody reads their journal."""

_CERTIFICATES = """
    WITH RECURSIVE number (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < :count)
    INSERT INTO certificates
        (sequence, serial, member_id, previous, key_hash, not_before, not_after, renew_at)
    SELECT :first + n, printf('%032x', n), printf('%032x', n), 0, printf('%064x', n), :now - 100000,
        :now + 2000000 + (n * 7919) % 500000, :now + 60 + (n * 7919) % 1600000
    FROM number"""
_MEMBERS = """
    INSERT INTO members
        (member_id, sequence, host, state, role, sans, endpoint, joined_at, method, current_serial,
         current_sequence, renew_at, not_after, last_not_after, stamp, role_sequence)
    SELECT member_id, sequence, printf('x%08d', sequence), 'active', 'member', '[]', '{}',
        not_before, 'bench', serial, sequence, renew_at, not_after, not_after,
        printf('%016x', sequence), sequence
    FROM certificates WHERE sequence >= :first"""


def measure() -> list[Result]:
    """Return what a look at the due members costs, and what knowing the next due date does.

    The due members are real rows with their journal; the others are what the indexes have to leave
    aside, written straight into the projections.
    """
    with lone_home(DUE, due=True) as paths:
        _fill(paths.ledger)
        ledger = Ledger.open(paths.ledger, node="atlas")
        now = wall_s()
        try:
            looks = [_look_ms(ledger, now) for _ in range(WARM_UP + LOOKS)][WARM_UP:]
            nexts = [_next_ms(ledger) for _ in range(WARM_UP + LOOKS)][WARM_UP:]
        finally:
            ledger.close()
    note = f"{DUE} due among {MEMBERS}, the first {PAGE} of them"
    return [
        result("due_among_1m_ms", looks, unit="ms", better="lower", target=1, note=note),
        result("next_due_among_1m_ms", nexts, unit="ms", better="lower", target=1),
    ]


def _fill(file: Path) -> None:
    words = {"count": MEMBERS - DUE, "first": FIRST, "now": wall_s()}
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        for statement in (_CERTIFICATES, _MEMBERS):
            connection.execute(statement, words)
        connection.execute("COMMIT")


def _look_ms(ledger: Ledger, now: UnixSeconds) -> float:
    began = time.perf_counter()
    rows = ledger.due(now, PAGE)
    took = (time.perf_counter() - began) * 1000
    assert len(rows) == PAGE, len(rows)
    return took


def _next_ms(ledger: Ledger) -> float:
    began = time.perf_counter()
    found = ledger.next_renew_at()
    assert found is not None
    return (time.perf_counter() - began) * 1000
