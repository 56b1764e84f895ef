"""Ledgers that older releases wrote: dumps of their own files, and what must come of them."""

import sqlite3
from pathlib import Path

from broker.ledger import schema
from broker.ledger.sqlite import Ledger
from tests.ledger.ledger_facts import issued, joined, mesh
from tests.ledger.ledger_room import opened, write

DUMPS = Path(__file__).with_name("older")
NEWEST = len(schema.MIGRATIONS)
OLDER = tuple(range(1, NEWEST))


def place(home: Path, version: int) -> Path:
    """Put a ledger of `version` into `home`.

    Nothing but the tables of notices came after version 4, which no release was made of: it is the
    present one without them.
    """
    path = home / "ledger.db"
    dump = DUMPS / f"ledger_{version}.sql"
    if dump.exists():
        connection = sqlite3.connect(path, isolation_level=None)
        connection.executescript(dump.read_text(encoding="utf-8"))
    else:
        assert version == 4, f"make a dump of version {version} with the release that wrote it"
        ledger = opened(home)
        write(ledger, mesh(), joined("web1", "a1"), issued("a1", "01"))
        ledger.close()
        connection = sqlite3.connect(path, isolation_level=None)
        connection.executescript("DROP TABLE troubles; DROP TABLE notices;")
        connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
    path.chmod(0o600)
    return path


def version_of(path: Path) -> int:
    """Return the schema version of a closed ledger."""
    connection = sqlite3.connect(path)
    try:
        return schema.version_of(connection)
    finally:
        connection.close()


def content(path: Path, *tables: str) -> dict[str, list[tuple[object, ...]]]:
    """Return all rows of `tables`, or of every table there is."""
    connection = sqlite3.connect(path)
    try:
        named = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        wanted = tables or tuple(name for (name,) in named)
        return {
            table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # noqa: S608 (our names)
            for table in wanted
        }
    finally:
        connection.close()


def check_whole(ledger: Ledger) -> None:
    """Check that the chain holds and that every projection is the fold of the journal."""
    assert ledger.verify_chain()[2] is None
    assert ledger.differing_projections() == ()
