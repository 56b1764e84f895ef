"""A ledger of an older release opens, keeps its journal, and gets the tables of this one."""

import sqlite3
from pathlib import Path

import pytest

from broker.errors import LedgerDamagedError
from broker.ledger import projection, schema
from broker.wire import facts
from tests.ledger.ledger_facts import adopted, conflict, invited, issued, joined, mesh, revoked
from tests.ledger.ledger_room import opened, write

OLD = Path(__file__).with_name("version_1.sql").read_text(encoding="utf-8")
KEPT = ("journal", "head", "local", "requests", "presence")
HISTORY = (
    mesh(),
    joined("atlas", "f1", "primary"),
    invited("b1"),
    facts.InviteUsed("b1", "a1", "dd"),
    joined("web1", "a1"),
    issued("a1", "01"),
    facts.TOTPStepUsed(7),
    joined("db", "a2"),
    issued("a2", "02"),
    revoked("a2", "db"),
    facts.EnrollmentOpened(),
)


def _old(home: Path) -> Path:
    """Return the ledger of `home` as the release with version 1 would have left it."""
    path, new = home / "ledger.db", home / "new.db"
    path.rename(new)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(OLD)
    connection.execute(f"ATTACH '{new}' AS new")
    for table in KEPT:
        connection.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table}")  # noqa: S608 (our names)
    connection.execute("INSERT INTO mesh VALUES (1, 'rotten', '', '', '', 1, 1, '[]', '[]', 0)")
    connection.execute("INSERT INTO totp_steps VALUES (99, 0)")
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID:d}")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    return path


def test_a_ledger_of_version_1_opens_and_its_tables_are_folded_anew(home: Path) -> None:
    """Same journal, same head, same incarnation; stamps come from the rows."""
    ledger = opened(home)
    write(ledger, *HISTORY)
    before = (ledger.head, ledger.term, ledger.incarnation, projection.dump(ledger._connection))
    ledger.close()
    path = _old(home)
    ledger = opened(home)
    after = (ledger.head, ledger.term, ledger.incarnation, projection.dump(ledger._connection))
    assert after == before
    assert ledger.differing_projections() == ()
    assert ledger.verify_chain()[2] is None
    write(ledger, adopted(joined("mail", "a3"), 1, 40), conflict("d1"))
    assert (ledger.member_count(), ledger.review_count()) == (3, 1)
    ledger.close()
    assert schema.version_of(sqlite3.connect(path)) == len(schema.MIGRATIONS)


def test_an_upgrade_that_cannot_read_a_row_changes_nothing(home: Path) -> None:
    """The ledger is damage, and stays what it was for whoever looks into it."""
    ledger = opened(home)
    write(ledger, *HISTORY)
    ledger.close()
    path = _old(home)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TRIGGER journal_is_append_only")
    connection.execute("UPDATE journal SET payload = x'c1' WHERE sequence = 3")
    connection.close()
    with pytest.raises(LedgerDamagedError, match="holds no fact"):
        opened(home)
    connection = sqlite3.connect(path)
    assert schema.version_of(connection) == 1
    assert connection.execute("SELECT mesh_id FROM mesh").fetchone() == ("rotten",)
    connection.close()
