"""Journal rows as they travel: a line is a row without its number and its two hashes.

A page names the row its lines follow, so the reader finds number and hash of each by itself and a
changed, lost or moved line changes the hash of the last one, which the head of the page speaks for.
"""

from collections.abc import Iterable

from broker.ledger.journal import linked
from broker.ledger.rows import JournalRow
from broker.units import UnixSeconds
from broker.wire.replica import JournalLine, Mark

FRAME_BYTES = 192
"""What field names, numbers and lengths add to the texts and the payload of a row, at most."""


def line_of(row: JournalRow) -> JournalLine:
    """Return `row` as it travels."""
    return JournalLine(
        term=row.term,
        at=UnixSeconds(row.at),
        node=row.node,
        incarnation=row.incarnation,
        actor=row.actor,
        event=row.event,
        payload=row.payload,
    )


def row_after(after: Mark, line: JournalLine) -> JournalRow:
    """Return the row that `line` is behind `after`.

    Raises:
        ValueError: The hash of `after` is none; unpacked pages were checked for that.
    """
    hashed = (
        after.sequence + 1,
        line.term,
        line.at,
        line.node,
        line.incarnation,
        line.actor,
        line.event,
        line.payload,
    )
    return linked(bytes.fromhex(after.hash), hashed)


def rows_of(after: Mark, lines: Iterable[JournalLine]) -> list[JournalRow]:
    """Return the rows that `lines` are behind `after`; raises as `row_after`."""
    rows: list[JournalRow] = []
    for line in lines:
        rows.append(row_after(after, line))
        after = mark_of(rows[-1])
    return rows


def mark_of(row: JournalRow) -> Mark:
    """Return `row` by number and hash."""
    return Mark(row.sequence, row.hash.hex())


def line_bytes(row: JournalRow) -> int:
    """Return what `row` takes of an unpacked page, at most."""
    texts = row.node + row.incarnation + row.actor + row.event
    return FRAME_BYTES + len(texts.encode()) + len(row.payload)
