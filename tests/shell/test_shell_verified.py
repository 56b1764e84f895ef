"""The mark of what was verified: it saves a walk, and never trusts another file or boot."""

import sqlite3
from pathlib import Path

import msgspec
import pytest

from broker.errors import LedgerDamagedError
from broker.shell.verified import MARK, Mark, open_ledger
from broker.wire.enrollment import EnrollmentView, SetEnrollment
from broker.wire.ids import Service
from tests.shell.office import Office


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh with some rows, its ledger closed and verified once."""
    office = Office.create(home)
    office.paths.run.mkdir(mode=0o700)
    for number in range(6):
        request = SetEnrollment(open=bool(number % 2), operator="root")
        office.ask(Service.CONSOLE, request, EnrollmentView)
    office.ledger.close()
    open_ledger(office.paths, node="atlas").close()
    return office


def tamper(office: Office, sequence: int) -> None:
    """Change the actor of one row, as somebody with the file could."""
    connection = sqlite3.connect(office.paths.ledger)
    triggers = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    for (name,) in connection.execute(triggers).fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("UPDATE journal SET actor = 'mallory' WHERE sequence = ?", (sequence,))
    connection.commit()
    connection.close()


def test_rows_after_the_mark_are_always_walked(office: Office) -> None:
    """What was never verified is verified now."""
    path = office.paths.run / MARK
    mark = msgspec.json.decode(path.read_bytes(), type=Mark)
    ledger = open_ledger(office.paths, node="atlas")
    row = ledger.audit(2, 1)[0]
    ledger.close()
    earlier = msgspec.structs.replace(mark, sequence=row.sequence, hash=row.hash.hex())
    path.write_bytes(msgspec.json.encode(earlier))
    tamper(office, 6)
    with pytest.raises(LedgerDamagedError, match="row 6"):
        open_ledger(office.paths, node="atlas")


@pytest.mark.parametrize(
    "wrong", [{"boot": "another"}, {"inode": 1}, {"hash": "00" * 32}, {"sequence": 10**6}]
)
def test_a_mark_of_another_boot_file_or_head_means_a_full_check(
    office: Office, wrong: dict[str, object]
) -> None:
    """Anything that does not fit exactly counts for nothing."""
    path = office.paths.run / MARK
    mark = msgspec.json.decode(path.read_bytes(), type=Mark)
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(mark, **wrong)))
    tamper(office, 2)
    with pytest.raises(LedgerDamagedError, match="row 2"):
        open_ledger(office.paths, node="atlas")


def test_a_torn_mark_means_a_full_check(office: Office) -> None:
    """The mark is a convenience, never a reason to fail (row 12)."""
    (office.paths.run / MARK).write_bytes(b"{half")
    open_ledger(office.paths, node="atlas").close()
    tamper(office, 2)
    (office.paths.run / MARK).unlink()
    with pytest.raises(LedgerDamagedError, match="row 2"):
        open_ledger(office.paths, node="atlas")
