"""One connection, explicit transactions, and what becomes of them when the disk says no.

After any storage failure the whole open group is gone: nothing of it was acknowledged, and
`append` and `commit` keep refusing until `rollback` or `begin`. A full disk needs no more than
space. After an I/O error the connection is not believed any longer, because the kernel may have
dropped dirty pages and a later fsync would succeed without them: the next write opens a new
connection, checks that it stands where the last good commit stood, and moves the whole log into
the file before it goes on.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from broker.errors import LedgerDamagedError, MeshError, StorageError
from broker.ledger import file, journal
from broker.ledger.legible import legible
from broker.ledger.rows import Head

_SELF_HEALING = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

Parameters = Sequence[object]


class Store:
    """The connection and its transactions; every statement of the ledger passes through here."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._durable_head = self._head = journal.read_head(connection)
        self._durable_term = self._term = file.read_term(connection)
        self._in_group = False
        self._failed = False
        self._suspect = False
        self._blind = False

    @property
    def head(self) -> Head:
        """Where the journal stands, rows of the open transaction included."""
        return self._head

    @property
    def durable_head(self) -> Head:
        """Where the journal stood at the last commit: all that anybody may be told of."""
        return self._durable_head

    def begin(self) -> None:
        """Start a group; whatever is appended until `commit` happens together or not at all.

        Raises:
            StorageError: The disk does not take writes now; nothing was started.
            ValueError: A group is open already.
        """
        if self._in_group and not self._failed:
            raise ValueError("a transaction is open already")
        self.rollback()
        with self._translated():
            self._renew_connection()
            self._connection.execute("BEGIN IMMEDIATE")
        self._in_group = True

    def commit(self) -> None:
        """Make the group durable with one fsync.

        Raises:
            StorageError: It could not be made durable; it was rolled back.
            ValueError: No group is open.
        """
        self._require_group()
        try:
            with self._translated():
                if self._head != self._durable_head:
                    journal.write_head(self._connection, self._head)
                self._connection.execute("COMMIT")
        except MeshError:
            self.rollback()
            raise
        self._durable_head, self._durable_term = self._head, self._term
        self._in_group = False

    def rollback(self) -> None:
        """Forget the open group; harmless without one."""
        self._abandon()
        self._in_group = self._failed = False

    def close(self) -> None:
        """Forget the open group and let go of the file."""
        self.rollback()
        self._connection.close()

    def _require_group(self) -> None:
        if not self._in_group:
            raise ValueError("no transaction is open")
        if self._failed:
            raise StorageError(f"{self._path}: this transaction failed before and was rolled back")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection inside the open group, or inside one of its own."""
        if self._in_group:
            self._require_group()
            with self._translated():
                yield self._connection
            return
        self.begin()
        try:
            with self._translated():
                yield self._connection
        except BaseException:
            self.rollback()
            raise
        self.commit()

    def _all(self, statement: str, parameters: Parameters = ()) -> list[tuple[Any, ...]]:
        with self._reading() as connection:
            return connection.execute(statement, parameters).fetchall()

    def _one(self, statement: str, parameters: Parameters = ()) -> tuple[Any, ...] | None:
        with self._reading() as connection:
            row: tuple[Any, ...] | None = connection.execute(statement, parameters).fetchone()
        return row

    def _number(self, statement: str, parameters: Parameters = ()) -> int:
        row = self._one(statement, parameters)
        return int(row[0]) if row is not None else 0

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection; one that could not read the last time is replaced first.

        Whoever wants to write reads before: without this nothing would ever open a new one.
        """
        if self._blind and not self._in_group:
            # While the disk is broken the old one goes on: it may have the page in memory.
            with suppress(StorageError), self._translated():
                self._renew_connection()
        try:
            with legible():
                yield self._connection
        except sqlite3.DatabaseError as error:
            trouble = self._trouble(error)
            self._blind = self._suspect
            raise trouble from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            with legible():
                yield
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._trouble(error) from error

    def _trouble(self, error: sqlite3.DatabaseError, *, fresh: bool = False) -> MeshError:
        """Return what `error` means for the caller; the open group does not survive it.

        A connection that saw an I/O error may call a good file malformed: only a `fresh` one, or
        one that nothing happened to, is believed to have seen damage.
        """
        code = file.primary_code(error)
        if isinstance(error, sqlite3.ProgrammingError) or code == sqlite3.SQLITE_ERROR:
            raise error  # a wrong statement is our bug, not the disk's
        self._fail()
        if code in _DAMAGE and (fresh or not self._suspect):
            self._suspect = True
            return LedgerDamagedError(
                f"{self._path} is damaged: {error}",
                hint="stop the broker; restore the ledger from a backup or a standby",
            )
        self._suspect = self._suspect or code not in _SELF_HEALING
        return StorageError(
            f"{self._path}: {error}; nothing was written",
            hint=f"make room or repair the disk below {self._path.parent}; it goes on by itself",
        )

    def _fail(self) -> None:
        self._abandon()
        self._failed = self._in_group

    def _abandon(self) -> None:
        self._head, self._term = self._durable_head, self._durable_term
        if not self._connection.in_transaction:
            return
        try:
            self._connection.execute("ROLLBACK")
        except sqlite3.DatabaseError:
            # A connection that cannot even roll back is dropped before the next write.
            self._suspect = True

    def _renew_connection(self) -> None:
        """Replace a connection that saw an I/O error; the old one goes only when the new stands."""
        if not self._suspect:
            return
        fresh = file.connect(self._path)
        try:
            file.configure(self._path, fresh)
            self._compare(journal.read_head(fresh))
        except sqlite3.DatabaseError as error:
            fresh.close()
            raise self._trouble(error, fresh=True) from error
        except BaseException:
            fresh.close()
            raise
        self._connection.close()
        self._connection = fresh
        busy, _pages, _moved = fresh.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise StorageError(f"{self._path}: somebody else reads it; the log could not be moved")
        self._suspect = self._blind = False

    def _compare(self, found: Head) -> None:
        if found == self._durable_head:
            return
        raise LedgerDamagedError(
            f"{self._path} stands at row {found.sequence}, "
            f"the last good commit at row {self._durable_head.sequence}",
            hint="stop the broker; restore the ledger from a backup or a standby",
        )
