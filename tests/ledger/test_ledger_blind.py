"""A connection that cannot read any more is replaced by whoever reads next."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from broker.errors import StorageError
from broker.ledger import file
from tests.ledger.ledger_facts import issued, joined, mesh, renewed
from tests.ledger.ledger_room import opened, write


class _Stuck(sqlite3.Connection):
    """An error that sticks: SQLite's pager keeps one until every page is given back."""

    @override
    def execute(self, *_given: Any) -> sqlite3.Cursor:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error


def test_reads_find_their_way_back_without_a_write(home: Path) -> None:
    """Whoever wants to write reads first, so nothing else would ever open a new one (P12)."""
    ledger = opened(home)
    write(ledger, mesh(), joined("web1", "a1"), issued("a1", "01"))
    ledger._connection.close()
    ledger._connection = sqlite3.connect(":memory:", factory=_Stuck)
    with pytest.raises(StorageError):
        ledger.member_by_host("web1")
    assert ledger.member_by_host("web1") is not None
    write(ledger, renewed("a1", "02", "01"))
    ledger.close()


def test_damage_that_a_fresh_connection_sees_is_believed(home: Path) -> None:
    """A sick connection calls a good file malformed; a fresh one has no reason to."""
    ledger = opened(home)
    ledger._suspect = True
    error = sqlite3.DatabaseError("database disk image is malformed")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert isinstance(ledger._trouble(error), StorageError)
    assert not isinstance(ledger._trouble(error, fresh=True), StorageError)
    assert file.primary_code(error) == sqlite3.SQLITE_CORRUPT
    ledger.close()
