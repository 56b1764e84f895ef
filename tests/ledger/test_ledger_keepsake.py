"""An upgrade keeps a copy of what was there, and ends as the old ledger or as the new one."""

import errno
import hashlib
import os
import resource
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from broker.errors import LedgerDamagedError, StorageError
from broker.ledger import keepsake
from broker.ledger.keepsake import copies
from tests.ledger.ledger_facts import joined
from tests.ledger.ledger_older import NEWEST, OLDER, check_whole, content, place, version_of
from tests.ledger.ledger_room import opened, write

KEPT = ("journal", "head", "local", "requests", "presence")
KILLS = 25
SCHEMA = "f4425bb73caa7041"
"""Start of the SHA-256 of the statements that make the tables of the newest version."""


@pytest.mark.parametrize("version", OLDER)
def test_a_ledger_of_every_older_release_comes_up_to_the_present(home: Path, version: int) -> None:
    """Written by that release's own code, read by this one: same journal, tables folded anew.

    (row 54)
    """
    path = place(home, version)
    before = content(path, *KEPT)
    ledger = opened(home)
    check_whole(ledger)
    write(ledger, joined("mail", "a9"))
    check_whole(ledger)
    ledger.close()
    after = content(path, *KEPT)
    assert after["journal"][:-1] == before["journal"]
    assert (after["local"], after["presence"]) == (before["local"], before["presence"])
    assert version_of(path) == NEWEST


@pytest.mark.parametrize("version", OLDER)
def test_the_copy_is_the_old_ledger_whole_private_and_alone(home: Path, version: int) -> None:
    """It is what a person goes back to: nothing beside it, and nobody else may read it."""
    path = place(home, version)
    before = content(path)
    opened(home).close()
    (copy,) = copies(path)
    assert copy.name.startswith(f"ledger.db.v{version}-")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert (content(copy), version_of(copy)) == (before, version)
    beside = {entry.name for entry in home.iterdir()} - {path.name, copy.name}
    assert beside <= {"ledger.db-wal", "ledger.db-shm"}


def test_a_ledger_of_this_release_is_opened_without_a_copy(home: Path) -> None:
    """A copy at every start would fill the disk."""
    opened(home).close()
    opened(home).close()
    assert copies(home / "ledger.db") == ()


def test_a_start_that_fails_again_and_again_makes_one_copy(home: Path) -> None:
    """The supervisor tries for ever; the disk does not."""
    path = place(home, 3)
    _break_a_row(path)
    for _ in range(3):
        with pytest.raises(LedgerDamagedError, match="holds no fact"):
            opened(home)
    assert len(copies(path)) == 1
    assert version_of(path) == 3


def test_of_many_copies_of_one_version_the_newest_are_kept(home: Path) -> None:
    """Whoever goes back and forth between two releases keeps what is worth keeping."""
    path = place(home, 3)
    for day in range(1, 6):
        (home / f"ledger.db.v3-2020010{day}T000000Z").write_bytes(b"of another journal")
    opened(home).close()
    assert len(copies(path, 3)) == keepsake.KEPT_MAX
    assert content(copies(path, 3)[-1], "journal") == content(path, "journal")


def test_the_copy_just_made_is_kept_whatever_the_clock_says(home: Path) -> None:
    """A machine without a battery starts in 1970: by name the newest copy is the oldest then."""
    path = place(home, 3)
    for day in range(1, 4):
        (home / f"ledger.db.v3-2099010{day}T000000Z").write_bytes(b"of another journal")
    opened(home).close()
    assert len(copies(path, 3)) == keepsake.KEPT_MAX
    assert content(copies(path, 3)[0], "journal") == content(path, "journal")


def test_without_room_for_the_copy_nothing_is_upgraded(home: Path) -> None:
    """An upgrade that cannot be undone is not begun (row 14, P12)."""
    path = place(home, 3)
    before = content(path)
    with (
        _files_no_larger_than(65_536),
        pytest.raises(StorageError, match="no copy of it") as caught,
    ):
        opened(home)
    assert str(home) in caught.value.hint
    assert (content(path), version_of(path), copies(path)) == (before, 3, ())
    assert not list(home.glob("*.part"))
    opened(home).close()
    assert version_of(path) == NEWEST


@pytest.mark.parametrize("more_pages", [0, 1, 3, 6, 12])
def test_a_disk_that_fills_during_the_upgrade_leaves_the_old_ledger(
    home: Path, monkeypatch: pytest.MonkeyPatch, more_pages: int
) -> None:
    """Full in the middle is refused as such: nothing is damaged, and it goes on when there is room.

    (row 14, P12)
    """
    path = place(home, 1)
    before = content(path, *KEPT)
    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", _with_pages(sqlite3.connect, path, more_pages))
        with pytest.raises(StorageError, match="full"):
            opened(home)
    assert version_of(path) < NEWEST
    assert content(path, *KEPT) == before
    ledger = opened(home)
    check_whole(ledger)
    ledger.close()


def test_an_upgrade_killed_anywhere_is_the_old_ledger_or_a_newer_one(home: Path) -> None:
    """Killed before any of its statements: never between two versions, and the next start goes on.

    (row 12, P1)
    """
    chance = Random(6)
    statements = _statements_of_an_upgrade(home / "counted")
    seen = set()
    for number in sorted(chance.sample(range(statements), KILLS)):
        room = home / f"at-{number}"
        room.mkdir()
        path = place(room, 1)
        before = content(path, *KEPT)
        assert _killed_before(room, number), number
        seen.add(version_of(path))
        assert content(path, *KEPT) == before, number
        ledger = opened(room)
        check_whole(ledger)
        ledger.close()
        (copy,) = copies(path, 1)
        assert content(copy, *KEPT) == before, number
    assert seen >= {1, 2, 3}, seen


def test_a_newer_ledger_is_refused_with_the_way_back(home: Path) -> None:
    """A downgrade is refused by name, and told where the ledger from before the upgrade lies."""
    path = place(home, 3)
    opened(home).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {NEWEST + 1}")
    connection.close()
    with pytest.raises(LedgerDamagedError, match="made by a newer release") as caught:
        opened(home)
    assert f"ledger version {NEWEST + 1}, this one knows {NEWEST}" in caught.value.detail
    assert str(copies(path)[0]) in caught.value.hint


def test_the_tables_change_only_with_the_version(home: Path) -> None:
    """A projection changed without a migration would differ between new nodes and upgraded ones.

    After adding a migration, make a dump of the version before it for `older/` and note the new
    digest here.
    """
    ledger = opened(home)
    tables = ledger._connection.execute("SELECT sql FROM sqlite_schema ORDER BY name").fetchall()
    ledger.close()
    digest = hashlib.sha256(repr(tables).encode()).hexdigest()
    assert (NEWEST, digest[:16]) == (5, SCHEMA)


def _break_a_row(path: Path) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("DROP TRIGGER journal_is_append_only")
    connection.execute("UPDATE journal SET payload = x'c1' WHERE sequence = 3")
    connection.close()


@contextmanager
def _files_no_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def _with_pages(
    connect: Callable[..., sqlite3.Connection], path: Path, more: int
) -> Callable[..., sqlite3.Connection]:
    """Return `connect` whose ledger may grow by no more than so many pages."""

    def limited(place: str, *words: Any, **options: Any) -> sqlite3.Connection:
        made = connect(place, *words, **options)
        if f"{path}?" in place:
            (pages,) = made.execute("PRAGMA page_count").fetchone()
            made.execute(f"PRAGMA max_page_count = {pages + more}")
        return made

    return limited


def _statements_of_an_upgrade(room: Path) -> int:
    """Return how many statements bring a ledger of version 1 up to the present."""
    room.mkdir()
    place(room, 1)
    seen: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", _traced(seen.append))
        opened(room).close()
    return len(seen)


def _killed_before(room: Path, number: int) -> bool:
    """Open the ledger in a child that is killed before a statement; return whether it was."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status)
    left = [number]

    def count_down(_statement: str) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        vars(sqlite3)["connect"] = _traced(count_down)
        opened(room)
    finally:
        os._exit(errno.EIO)


def _traced(seen: Callable[[str], None]) -> Callable[..., sqlite3.Connection]:
    """Return `connect` for connections that tell of every statement before it runs."""
    real: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect(*words: Any, **options: Any) -> sqlite3.Connection:
        made = real(*words, **options)
        made.set_trace_callback(seen)
        return made

    return connect
