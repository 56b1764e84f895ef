"""Folds of a rollover: one CA is replaced by another, with a time in which both are trusted.

At most one rollover is open (`trusting` or `switched`). Whoever writes a step has just read the
phase, so a step that does not fit is a contradiction; an adopted one is no more than ignored, and
the merge lists it for a person. Only the step that retires a CA is never adopted: it says what one
primary knew of all members, and the primary in charge finds that out for itself.
"""

import sqlite3

from broker.ledger.texts import bundle_changed
from broker.ledger.where import Where
from broker.wire import facts

_OPEN = "phase IN ('trusting', 'switched')"
_START = f"""INSERT INTO rollovers (pin, sequence, phase, root, issuing, retiring_pin,
        retiring_root, retiring_issuing, nonce, ciphertext, root_crl, started_at)
    SELECT ?1, ?2, 'trusting', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11
    WHERE NOT EXISTS (SELECT 1 FROM rollovers WHERE {_OPEN} OR pin = ?1)
        AND EXISTS (SELECT 1 FROM mesh WHERE pin = ?5)"""  # noqa: S608 (our own text)
_SWITCH = """UPDATE rollovers SET phase = 'switched', switched_sequence = ?1
    WHERE pin = ?2 AND retiring_pin = ?3 AND phase = 'trusting'"""
_RETIRE = """UPDATE rollovers SET phase = 'retired'
    WHERE retiring_pin = ? AND phase = 'switched'"""


def rollover_started(db: sqlite3.Connection, fact: facts.RolloverStarted, where: Where) -> None:
    """Open a rollover, unless another one is open or replaces another CA than the one in force."""
    row = (
        fact.pin,
        where.sequence,
        fact.root,
        fact.issuing,
        fact.retiring_pin,
        fact.retiring_root,
        fact.retiring_issuing,
        fact.nonce,
        fact.ciphertext,
        fact.root_crl,
        where.at,
    )
    _step(db, where, db.execute(_START, row).rowcount)


def rollover_finished(db: sqlite3.Connection, fact: facts.RolloverFinished, where: Where) -> None:
    """Let the next CA be the one in force."""
    row = (where.sequence, fact.pin, fact.retired_pin)
    changed = db.execute(_SWITCH, row).rowcount
    if changed:
        db.execute("UPDATE mesh SET pin = ? WHERE id = 1", (fact.pin,))
    _step(db, where, changed)


def rollover_aborted(db: sqlite3.Connection, fact: facts.RolloverAborted, where: Where) -> None:
    """Forget a CA that never signed."""
    statement = "UPDATE rollovers SET phase = 'aborted' WHERE pin = ? AND phase = 'trusting'"
    _step(db, where, db.execute(statement, (fact.pin,)).rowcount)


def rollover_retired(db: sqlite3.Connection, fact: facts.RolloverRetired, where: Where) -> None:
    """Trust the old CA no longer; `pin` is that of the old one."""
    if where.adopted:
        return
    _step(db, where, db.execute(_RETIRE, (fact.pin,)).rowcount)


def _step(db: sqlite3.Connection, where: Where, changed: int) -> None:
    if changed:
        bundle_changed(db, where.sequence)
    elif not where.adopted:
        raise sqlite3.IntegrityError("a step of a rollover that does not fit its phase")
