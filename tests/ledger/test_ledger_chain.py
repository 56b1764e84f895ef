"""The hash chain: every change to history is seen at start, with the row that shows it."""

import hashlib
import sqlite3
from pathlib import Path

import msgspec
import pytest

from broker.errors import LedgerDamagedError
from broker.wire.codec import decode_fact
from tests.ledger.ledger_facts import NOW, issued, joined, mesh, renewed
from tests.ledger.ledger_room import opened, tamper, write

FACTS = (mesh(), joined("web1", "a1"), issued("a1", "01"), renewed("a1", "02", "01"))


def _five_rows(home: Path) -> None:
    ledger = opened(home)
    write(ledger, *FACTS)
    write(ledger, renewed("a1", "03", "02"))
    ledger.close()


def _refusal(home: Path) -> str:
    with pytest.raises(LedgerDamagedError) as caught:
        opened(home)
    assert str(home / "ledger.db") in caught.value.detail
    assert caught.value.hint
    return caught.value.detail


def test_a_row_names_the_row_before_it(home: Path) -> None:
    """The formula is part of the format: other nodes recompute it."""
    ledger = opened(home)
    first, second = write(ledger, mesh(), joined("web1", "a1"))
    assert first.previous_hash == bytes(32)
    assert second.previous_hash == first.hash
    hashed = (2, 1, NOW, "atlas", ledger.incarnation, "test", "member.joined", second.payload)
    expected = hashlib.sha256(first.hash + msgspec.msgpack.encode(hashed)).digest()
    assert second.hash == expected
    assert decode_fact(second.payload) == joined("web1", "a1")
    assert (ledger.head.sequence, ledger.head.hash) == (2, expected.hex())
    ledger.close()


def test_an_untouched_ledger_opens_with_the_same_head(home: Path) -> None:
    """The check has no false alarm, and incarnation and head survive a restart."""
    ledger = opened(home)
    write(ledger, *FACTS)
    before = (ledger.head, ledger.incarnation)
    ledger.close()
    again = opened(home)
    assert (again.head, again.incarnation) == before
    assert again.verify_chain() == (4, before[0].hash, None, "")
    again.close()


@pytest.mark.parametrize("row", [1, 3, 5])
@pytest.mark.parametrize("column", ["payload", "hash", "previous_hash"])
def test_a_flipped_byte_is_found_in_its_row(home: Path, row: int, column: str) -> None:
    """SQLite's own check does not see such a flip (row 18)."""
    _five_rows(home)
    tamper(
        home,
        f"""UPDATE journal SET {column} = CAST(substr({column}, 1, 8)
            || CASE substr({column}, 9, 1) WHEN x'00' THEN x'01' ELSE x'00' END
            || substr({column}, 10) AS BLOB) WHERE sequence = {row}""",  # noqa: S608 (a test's own words)
    )
    assert f"broken at row {row}:" in _refusal(home)


@pytest.mark.parametrize(
    "change",
    ["term = 9", "at = at + 1", "node = 'evil'", "incarnation = 'x'", "actor = 'x'", "event = 'x'"],
)
def test_every_column_is_under_the_hash(home: Path, change: str) -> None:
    """Who did it and when is as much history as what was done."""
    _five_rows(home)
    tamper(home, f"UPDATE journal SET {change} WHERE sequence = 2")  # noqa: S608 (a test's own words)
    assert "broken at row 2:" in _refusal(home)


def test_a_row_removed_from_the_middle_is_missed(home: Path) -> None:
    """A revocation that disappears must not go unnoticed."""
    _five_rows(home)
    tamper(home, "DELETE FROM journal WHERE sequence = 3")
    assert "broken at row 3: row 3 is missing, row 4 follows" in _refusal(home)


def test_a_row_removed_from_the_middle_and_renumbered_is_missed(home: Path) -> None:
    """Closing the gap in the numbers does not close the gap in the chain."""
    _five_rows(home)
    tamper(
        home,
        "DELETE FROM journal WHERE sequence = 3",
        "UPDATE journal SET sequence = 3 WHERE sequence = 4",
        "UPDATE journal SET sequence = 4 WHERE sequence = 5",
    )
    assert "broken at row 3:" in _refusal(home)


def test_rows_cut_off_the_end_differ_from_the_head(home: Path) -> None:
    """The chain itself is whole then; only the head remembers."""
    _five_rows(home)
    tamper(home, "DELETE FROM journal WHERE sequence = 5")
    assert "broken at row 5: the journal ends at row 4, its head says 5" in _refusal(home)


def test_a_row_beyond_the_head_is_refused(home: Path) -> None:
    """A well-made extra row was not committed by the ledger."""
    _five_rows(home)
    tamper(home, "UPDATE head SET sequence = 4, hash = (SELECT hash FROM journal WHERE sequence=4)")
    assert "broken at row 5: the journal ends at row 5, its head says 4" in _refusal(home)


def test_a_head_with_another_hash_is_refused(home: Path) -> None:
    """Same length, other end."""
    _five_rows(home)
    tamper(home, "UPDATE head SET hash = zeroblob(32)")
    assert "broken at row 5:" in _refusal(home)


def test_verify_chain_tells_the_first_bad_row_of_a_running_ledger(home: Path) -> None:
    """An audit on demand finds what happened after the start."""
    ledger = opened(home)
    write(ledger, *FACTS)
    tamper(home, "UPDATE journal SET actor = 'x' WHERE sequence = 2")
    rows, _, first_bad, detail = ledger.verify_chain()
    assert (rows, first_bad, detail) == (1, 2, "the row does not match its hash")
    ledger.close()


@pytest.mark.parametrize("statement", ["UPDATE journal SET actor = 'x'", "DELETE FROM journal"])
def test_the_journal_refuses_to_be_changed_by_mistake(home: Path, statement: str) -> None:
    """A slip in our own code cannot rewrite history either."""
    ledger = opened(home)
    write(ledger, *FACTS)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        ledger._connection.execute(statement)
    ledger.close()


def test_audit_pages_forward_and_shows_the_tail(home: Path) -> None:
    """The two ways the audit trail is read."""
    ledger = opened(home)
    write(ledger, *FACTS)
    assert [row.sequence for row in ledger.audit(1, 2)] == [2, 3]
    assert [row.sequence for row in ledger.audit(-1, 3)] == [2, 3, 4]
    assert [row.event for row in ledger.audit(0, 1)] == ["mesh.created"]
    ledger.close()
