"""The disk says no: refused whole, nothing half-written, and it goes on when the disk does."""

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.errors import LedgerDamagedError, StorageError
from broker.ledger import projection
from broker.ledger.sqlite import Ledger
from broker.units import UnixSeconds
from tests.ledger.ledger_facts import NOW, issued, joined, mesh, renewed
from tests.ledger.ledger_room import opened, write

REQUEST = bytes(16)


def _started(home: Path) -> Ledger:
    ledger = opened(home)
    write(ledger, mesh(), joined("web1", "a1"), issued("a1", "01"))
    return ledger


def _fill(ledger: Ledger) -> None:
    """Append until something gives."""
    for number in range(16, 5000):
        fact = renewed("a1", f"{number:04x}", "01")
        ledger.append(fact, actor="test", now=NOW)


def _no_more_pages(ledger: Ledger) -> None:
    (pages,) = ledger._connection.execute("PRAGMA page_count").fetchone()
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")


def _room_again(ledger: Ledger) -> None:
    ledger._connection.execute("PRAGMA max_page_count = 1000000")


@contextmanager
def _writes_fail_beyond(size: int) -> Iterator[None]:
    """Make the kernel refuse to grow any file past `size`: a real I/O error, at the commit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_in_the_middle_of_a_group_refuses_the_whole_group(home: Path) -> None:
    """Nothing of it was acknowledged, so nothing of it may remain."""
    ledger = _started(home)
    head, tables = ledger.head, projection.dump(ledger._connection)
    _no_more_pages(ledger)
    ledger.begin()
    with pytest.raises(StorageError) as caught:
        _fill(ledger)
    assert str(home / "ledger.db") in caught.value.detail
    assert caught.value.hint
    assert ledger.head == head
    assert projection.dump(ledger._connection) == tables
    ledger.rollback()
    _room_again(ledger)
    write(ledger, renewed("a1", "02", "01"))
    assert ledger.head.sequence == head.sequence + 1
    ledger.close()
    opened(home).close()


def test_a_group_that_failed_takes_nothing_more_until_it_is_rolled_back(home: Path) -> None:
    """Otherwise its second half would be committed without its first."""
    ledger = _started(home)
    _no_more_pages(ledger)
    ledger.begin()
    with pytest.raises(StorageError):
        _fill(ledger)
    _room_again(ledger)
    with pytest.raises(StorageError, match="failed before"):
        ledger.append(renewed("a1", "02", "01"), actor="test", now=NOW)
    with pytest.raises(StorageError, match="failed before"):
        ledger.remember(REQUEST, b"reply", NOW)
    with pytest.raises(StorageError, match="failed before"):
        ledger.commit()
    ledger.begin()
    ledger.commit()
    assert ledger.head.sequence == 3
    ledger.close()


def test_reads_go_on_while_the_disk_is_full(home: Path) -> None:
    """Revocation checks must not depend on free space (row 14, P12)."""
    ledger = _started(home)
    _no_more_pages(ledger)
    ledger.begin()
    with pytest.raises(StorageError):
        _fill(ledger)
    member = ledger.member_by_host("web1")
    assert member is not None
    assert member.current_serial == "01"
    ledger.close()


def test_an_error_at_the_commit_rolls_back_and_opens_anew_before_the_next_write(home: Path) -> None:
    """After a failed write or fsync the old connection's word counts for nothing (row 13, P12)."""
    ledger = _started(home)
    head, before = ledger.head, ledger._connection
    ledger.begin()
    ledger.append(renewed("a1", "02", "01"), actor="test", now=NOW)
    ledger.remember(REQUEST, b"reply", NOW)
    with _writes_fail_beyond(1), pytest.raises(StorageError, match=r"ledger\.db"):
        ledger.commit()
    assert (ledger.head, ledger.remembered(REQUEST)) == (head, None)
    assert ledger._connection is before
    write(ledger, renewed("a1", "03", "01"))
    assert ledger._connection is not before
    assert ledger.head.sequence == head.sequence + 1
    ledger.close()
    again = opened(home)
    assert again.certificate("02") is None
    assert again.certificate("03") is not None
    again.close()


def test_while_the_disk_stays_broken_every_group_is_refused_at_its_start(home: Path) -> None:
    """No later success without a fresh connection (row 13)."""
    ledger = _started(home)
    ledger.begin()
    ledger.append(renewed("a1", "02", "01"), actor="test", now=NOW)
    with _writes_fail_beyond(1):
        with pytest.raises(StorageError):
            ledger.commit()
        for _ in range(3):
            with pytest.raises(StorageError):
                ledger.begin()
            with pytest.raises(StorageError):
                ledger.local_set("lease", b"7")
    write(ledger, renewed("a1", "02", "01"))
    ledger.close()
    opened(home).close()


def test_after_an_error_the_log_is_moved_into_the_file(home: Path) -> None:
    """Frames of the refused commit must not come back after a crash."""
    ledger = _started(home)
    ledger.begin()
    ledger.append(renewed("a1", "02", "01"), actor="test", now=NOW)
    with _writes_fail_beyond(1), pytest.raises(StorageError):
        ledger.commit()
    ledger.begin()
    assert (home / "ledger.db-wal").stat().st_size == 0
    ledger.close()


def test_a_file_swapped_for_an_older_copy_is_not_written_to(home: Path) -> None:
    """The fresh connection must stand where the last good commit stood."""
    ledger = _started(home)
    ledger._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copy(home / "ledger.db", home / "old.db")
    write(ledger, renewed("a1", "02", "01"))
    ledger.begin()
    ledger.append(renewed("a1", "03", "02"), actor="test", now=NOW)
    with _writes_fail_beyond(1), pytest.raises(StorageError):
        ledger.commit()
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (home / name).unlink()
    (home / "old.db").rename(home / "ledger.db")
    with pytest.raises(LedgerDamagedError, match="stands at row 3, the last good commit at row 4"):
        ledger.begin()
    ledger.close()


def test_a_writer_elsewhere_is_a_refusal_and_not_damage(home: Path) -> None:
    """The lock keeps others out; should one come, the ledger waits a second and says so."""
    ledger = _started(home)
    intruder = sqlite3.connect(home / "ledger.db", isolation_level=None)
    intruder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageError, match="locked"):
        ledger.begin()
    intruder.execute("ROLLBACK")
    intruder.close()
    write(ledger, renewed("a1", "02", "01"))
    ledger.close()


_ON_A_FULL_DISK = """
import sys
from pathlib import Path
from broker.errors import StorageError
from tests.ledger.ledger_facts import NOW, issued, joined, mesh, renewed
from tests.ledger.ledger_room import opened, write

home = Path(sys.argv[1])
ledger = opened(home)
write(ledger, mesh(), joined("web1", "a1"), issued("a1", "01"))
ballast = home / "ballast"
try:
    with ballast.open("wb", buffering=0) as filling:
        while True:
            filling.write(bytes(4096))
except OSError:
    pass
good, refused = ledger.head.sequence, 0
for number in range(16, 200):
    ledger.begin()
    try:
        ledger.append(renewed("a1", f"{number:04x}", "01"), actor="test", now=NOW)
        ledger.commit()
        good = ledger.head.sequence
    except StorageError:
        refused += 1
    ledger.rollback()
    assert ledger.head.sequence == good, "half a group"
    assert ledger.member_by_host("web1") is not None
assert refused, "the disk never filled"
ballast.unlink()
write(ledger, renewed("a1", "02", "01"))
ledger.close()
again = opened(home)
assert again.head.sequence == good + 1
print("survived")
"""


def test_a_disk_that_is_really_full_refuses_and_then_goes_on(home: Path) -> None:
    """ENOSPC from a real file system, in a mount namespace of its own (row 14, P12)."""
    mounted = f'mount -t tmpfs -o size=512k none {home} && exec "$@"'
    isolated = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh")
    if (
        shutil.which("unshare") is None
        or subprocess.run((*isolated, "true"), check=False).returncode
    ):
        pytest.skip("this machine allows no mount namespace")
    done = subprocess.run(
        (*isolated, sys.executable, "-c", _ON_A_FULL_DISK, str(home)),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": "."},
    )
    assert done.stdout.strip() == "survived", done.stderr


def test_numbers_no_column_holds_are_refused_with_the_whole_group(home: Path) -> None:
    """A caller's mistake, and none of it stays."""
    ledger = _started(home)
    ledger.begin()
    with pytest.raises(ValueError, match="number"):
        ledger.append(renewed("a1", "02", "01"), actor="test", now=UnixSeconds(2**63))
    with pytest.raises(StorageError):
        ledger.commit()
    ledger.rollback()
    assert ledger.head.sequence == 3
    ledger.close()
    opened(home).close()
