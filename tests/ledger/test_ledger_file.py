"""Opening: made once and whole, private, upgraded, and never mistaken for empty."""

import sqlite3
import stat
from pathlib import Path

import pytest

from broker.errors import LedgerDamagedError, StorageError
from broker.ledger import schema
from tests.ledger.ledger_facts import issued, joined, mesh
from tests.ledger.ledger_room import opened, tamper, write

PAGE_BYTES = 4096


def _filled(home: Path) -> Path:
    ledger = opened(home)
    write(ledger, mesh(), *(joined(f"h{n}", f"{n:02x}") for n in range(200)))
    write(ledger, *(issued(f"{n:02x}", f"aa{n:02x}") for n in range(200)))
    ledger.close()
    return home / "ledger.db"


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_ledger_is_private_from_its_first_byte(home: Path) -> None:
    """Its log and shared memory inherit the mode."""
    ledger = opened(home)
    write(ledger, mesh())
    assert {_mode(path) for path in home.iterdir()} == {0o600}
    assert {path.name for path in home.iterdir()} == {"ledger.db", "ledger.db-wal", "ledger.db-shm"}
    ledger.close()


def test_durability_and_integrity_options_are_on(home: Path) -> None:
    """WAL alone does not mean durable; FULL (2) does."""
    ledger = opened(home)
    ask = ledger._connection.execute
    assert ask("PRAGMA journal_mode").fetchone() == ("wal",)
    assert ask("PRAGMA synchronous").fetchone() == (2,)
    assert ask("PRAGMA foreign_keys").fetchone() == (1,)
    tables = ask("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'").fetchall()
    assert all(strict for name, strict in tables if not name.startswith("sqlite_"))
    ledger.close()


def test_an_empty_ledger_starts_at_term_one_and_row_zero(home: Path) -> None:
    """What a node has before it belongs to anything."""
    ledger = opened(home)
    assert (ledger.term, ledger.head.sequence, ledger.head.hash) == (1, 0, "00" * 32)
    assert (ledger.mesh(), ledger.member_count(), ledger.bundle_sequence()) == (None, 0, 0)
    assert (ledger.next_renew_at(), ledger.weakest()) == (None, None)
    assert ledger.verify_chain() == (0, "00" * 32, None, "")
    ledger.close()


def test_a_creation_that_was_killed_leaves_nothing_in_the_way(home: Path) -> None:
    """The staged file of a dead attempt is replaced, and the next one succeeds."""
    (home / "ledger.db.new").write_bytes(b"half")
    opened(home).close()
    assert not (home / "ledger.db.new").exists()


@pytest.mark.parametrize("content", [b"", b"garbage" * 1000, b"SQLite format 3\x00" + bytes(4080)])
def test_a_file_that_is_no_ledger_is_damage_and_stays_as_it_is(home: Path, content: bytes) -> None:
    """Above all a file of size zero: it is a lost ledger, not a new one."""
    path = home / "ledger.db"
    path.write_bytes(content)
    with pytest.raises(LedgerDamagedError, match=r"ledger\.db"):
        opened(home)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused(home: Path) -> None:
    """A healthy file, but not ours."""
    connection = sqlite3.connect(home / "ledger.db")
    connection.execute("CREATE TABLE cookies (jar TEXT)")
    connection.execute("PRAGMA user_version = 1")
    connection.close()
    with pytest.raises(LedgerDamagedError, match="not a certmesh ledger"):
        opened(home)


def test_a_directory_in_its_place_is_refused(home: Path) -> None:
    """Whatever cannot be opened is never taken for a missing ledger."""
    (home / "ledger.db").mkdir()
    with pytest.raises(LedgerDamagedError):
        opened(home)


def test_a_lost_file_whose_log_is_still_there_is_not_started_afresh(home: Path) -> None:
    """Somebody removed the ledger; an empty one in its place would forget every revocation."""
    (home / "ledger.db-wal").write_bytes(b"frames")
    with pytest.raises(LedgerDamagedError, match="is missing"):
        opened(home)
    assert not (home / "ledger.db").exists()


def test_a_missing_directory_is_a_storage_error(home: Path) -> None:
    """Nothing is damaged; it cannot be made there."""
    with pytest.raises(StorageError, match="cannot be created"):
        opened(home / "nowhere")


def test_a_torn_file_is_damage(home: Path) -> None:
    """The second half never reached the disk (row 12)."""
    path = _filled(home)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(LedgerDamagedError):
        opened(home)


@pytest.mark.parametrize("page", [0, 1, 3, 7, 12])
def test_a_page_of_noise_is_damage(home: Path, page: int) -> None:
    """Wherever the disk lied (row 18)."""
    path = _filled(home)
    content = bytearray(path.read_bytes())
    content[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = b"\xa5" * PAGE_BYTES
    path.write_bytes(content)
    with pytest.raises(LedgerDamagedError):
        opened(home)


def test_a_newer_ledger_is_refused_and_not_touched(home: Path) -> None:
    """A downgrade must not guess at tables it does not know (row 54)."""
    path = _filled(home)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(LedgerDamagedError, match="made by a newer release") as caught:
        opened(home)
    assert "99" in caught.value.detail
    assert path.read_bytes() == before


def test_a_ledger_without_its_term_or_head_is_damage(home: Path) -> None:
    """Rows that every start needs."""
    _filled(home)
    tamper(home, "DELETE FROM local WHERE key = 'ledger.term'")
    with pytest.raises(LedgerDamagedError, match="term is missing"):
        opened(home)


def test_migrations_run_in_order_once_and_keep_what_is_there(home: Path) -> None:
    """An upgrade brings version n to the newest, step by step."""
    connection = sqlite3.connect(_filled(home), isolation_level=None)
    plan = (
        *schema.MIGRATIONS,
        ("CREATE TABLE policy (rule TEXT NOT NULL) STRICT", "INSERT INTO policy VALUES ('a')"),
        ("ALTER TABLE policy ADD COLUMN note TEXT NOT NULL DEFAULT ''",),
    )
    known = len(schema.MIGRATIONS)
    assert schema.migrate(connection, plan) == (known, known + 2)
    assert connection.execute("SELECT * FROM policy").fetchall() == [("a", "")]
    assert connection.execute("SELECT count(*) FROM journal").fetchone() == (401,)
    assert schema.migrate(connection, plan) == (known + 2, known + 2)
    connection.close()


def test_a_migration_that_fails_leaves_the_version_before_it(home: Path) -> None:
    """Its tables and its number are one transaction."""
    connection = sqlite3.connect(_filled(home), isolation_level=None)
    known = len(schema.MIGRATIONS)
    plan = (
        *schema.MIGRATIONS,
        ("CREATE TABLE policy (rule TEXT)", "INSERT INTO nowhere VALUES (1)"),
    )
    with pytest.raises(sqlite3.OperationalError):
        schema.migrate(connection, plan)
    assert schema.version_of(connection) == known
    assert not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'policy'").fetchall()
    connection.close()


def test_a_version_newer_than_the_plan_is_the_callers_mistake(home: Path) -> None:
    """`open` looks first; migrate never goes back."""
    connection = sqlite3.connect(_filled(home), isolation_level=None)
    with pytest.raises(ValueError, match="known=0"):
        schema.migrate(connection, ())
    connection.close()
