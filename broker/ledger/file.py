"""The ledger's file: made whole or not at all, opened with suspicion, never mistaken for empty.

A new ledger is staged beside its name and renamed, so a file that exists under the name always
has tables: one without is damage, whatever its size.
"""

import os
import secrets
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from broker.errors import LedgerDamagedError, MeshError, StorageError
from broker.ledger import schema
from broker.ledger.journal import ChainVerdict, check_chain, has_row
from broker.ledger.keepsake import copies, keep_copy
from broker.ledger.legible import legible
from broker.ledger.rows import Head
from broker.wire.chain import GENESIS

INCARNATION_KEY = "ledger.incarnation"
TERM_KEY = "ledger.term"
FIRST_TERM = 1

SQLITE_OLDEST = (3, 37, 0)
"""First release with STRICT tables."""

BUSY_TIMEOUT_S = 1.0
CACHE_KIB = 8192
"""Enough for the pages one group dirties, so that nothing spills before the commit."""

_RESTORE = "keep the file for inspection and put the newest backup or a standby's copy in its place"


def open_file(path: Path, known: Head | None = None) -> sqlite3.Connection:
    """Return a verified connection to the ledger at `path`, made first when nothing is there.

    Args:
        path: The file.
        known: A head of this very file that was verified since the machine started; what lies
            before it is then taken as read.

    Raises:
        LedgerDamagedError: The file is unreadable, foreign, torn, tampered with, or newer.
        StorageError: The file may be fine, but the disk is full or somebody else holds it.
    """
    if sqlite3.sqlite_version_info < SQLITE_OLDEST:
        raise StorageError(
            f"SQLite {sqlite3.sqlite_version} is too old for {path}",
            hint="use a Python that brings SQLite 3.37 or newer",
        )
    if not os.path.lexists(path):
        create_file(path)
    try:
        connection = connect(path)
    except sqlite3.Error as error:
        raise opening_trouble(path, error) from error
    try:
        with legible():
            _verify(path, connection, known)
    except MeshError:
        connection.close()
        raise
    except sqlite3.Error as error:
        connection.close()
        raise opening_trouble(path, error) from error
    return connection


def renew_incarnation(path: Path) -> None:
    """Give a copied ledger a name of its own: the rows it writes are not those of the original.

    Raises:
        StorageError: The disk refused.
    """
    try:
        with closing(connect(path)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(
                "UPDATE local SET value = ? WHERE key = ?",
                (secrets.token_hex(8).encode(), INCARNATION_KEY),
            )
    except sqlite3.Error as error:
        raise StorageError(f"{path}: {error}") from error


def inspect_file(path: Path) -> ChainVerdict:
    """Return what the chain of the ledger at `path` is worth, over a connection of its own.

    Sees committed rows only, changes nothing, and may run beside the broker.

    Raises:
        LedgerDamagedError: The file is no ledger at all.
    """
    try:
        with legible(), closing(connect(path)) as connection:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("BEGIN")
            return check_chain(connection)
    except sqlite3.Error as error:
        raise opening_trouble(path, error) from error


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to an existing file, without looking inside; never creates one."""
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode=rw",
        uri=True,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        cached_statements=256,
    )


def configure(path: Path, connection: sqlite3.Connection) -> None:
    """Set the options that durability and integrity rest on.

    WAL with `synchronous=FULL` lost none of the acknowledged commits when power was pulled; WAL
    with NORMAL lost all of the last ones.
    """
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB:d}")
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise StorageError(
            f"the file system below {path} cannot keep a write-ahead log (mode {mode})",
            hint="put node.data_dir on a local disk",
        )


def opening_trouble(path: Path, error: sqlite3.Error) -> MeshError:
    """Return what a failed look at the file means: trouble with the disk, or damage."""
    if primary_code(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY}:
        return StorageError(f"{path}: {error}", hint="free space, or stop whoever else uses it")
    if primary_code(error) == sqlite3.SQLITE_IOERR or (
        primary_code(error) == sqlite3.SQLITE_CANTOPEN and path.is_file()
    ):
        # Says nothing about the content: nobody should put an older copy in its place for this.
        return StorageError(f"{path}: {error}", hint=f"look at the disk below {path.parent}")
    return LedgerDamagedError(f"{path} cannot be read as a ledger: {error}", hint=_RESTORE)


def read_term(connection: sqlite3.Connection) -> int:
    """Return the current term."""
    row = connection.execute("SELECT value FROM local WHERE key = ?", (TERM_KEY,)).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("the term is missing")
    return int(row[0])


def primary_code(error: Exception) -> int:
    """Return SQLite's primary result code of `error`, 0 when it has none."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _verify(path: Path, connection: sqlite3.Connection, known: Head | None) -> None:
    _recognize(path, connection)
    configure(path, connection)
    if (version := schema.version_of(connection)) < len(schema.MIGRATIONS):
        keep_copy(path, connection, version)
        schema.migrate(connection)
    read_term(connection)
    if known is None or not has_row(connection, known):
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise LedgerDamagedError(f"{path} is damaged: {found}", hint=_RESTORE)
    verdict = check_chain(connection, known)
    if verdict.first_bad is not None:
        raise LedgerDamagedError(
            f"{path}: the journal is broken at row {verdict.first_bad}: {verdict.detail}",
            hint=_RESTORE,
        )


def _recognize(path: Path, connection: sqlite3.Connection) -> None:
    """Refuse what is not ours before anything is written to it."""
    (mark,) = connection.execute("PRAGMA application_id").fetchone()
    version = schema.version_of(connection)
    if mark != schema.APPLICATION_ID or version == 0:
        raise LedgerDamagedError(f"{path} is not a certmesh ledger", hint=_RESTORE)
    if version > len(schema.MIGRATIONS):
        raise LedgerDamagedError(
            f"{path} was made by a newer release (ledger version {version}, "
            f"this one knows {len(schema.MIGRATIONS)}); nothing was changed",
            hint=_way_back(path),
        )


def _way_back(path: Path) -> str:
    again = "install that release again"
    if not (kept := copies(path)):
        return again
    return f"{again}; {kept[-1]} is from before the upgrade and lacks all that came after it"


def create_file(path: Path) -> None:
    """Make an empty ledger at `path`, whole and synced, or nothing.

    Raises:
        LedgerDamagedError: The write-ahead log of a lost ledger lies beside the name.
        StorageError: The directory does not take it.
    """
    log = path.with_name(path.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise LedgerDamagedError(f"{path} is missing, but {log} is there", hint=_RESTORE)
    try:
        _stage(path, path.with_name(path.name + ".new"))
    except (sqlite3.Error, OSError) as error:
        raise StorageError(
            f"{path} cannot be created: {error}",
            hint=f"make room below {path.parent}, or let this user write there",
        ) from error


def _stage(path: Path, staged: Path) -> None:
    staged.unlink(missing_ok=True)
    os.close(os.open(staged, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    connection = connect(staged)
    try:
        _fill(connection)
    finally:
        connection.close()
    _sync(staged)
    staged.rename(path)
    _sync(path.parent)


def _fill(connection: sqlite3.Connection) -> None:
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID:d}")
    schema.migrate(connection)
    connection.execute("INSERT INTO head VALUES (1, ?, 0, ?)", (FIRST_TERM, GENESIS))
    connection.executemany(
        "INSERT INTO local VALUES (?, ?)",
        (
            (INCARNATION_KEY, secrets.token_hex(8).encode()),
            (TERM_KEY, str(FIRST_TERM).encode()),
        ),
    )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
