"""Backups of a key holder: sealed, read back, signed, kept, and never in the broker's way."""

import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from broker.errors import BackupRejectedError, BusyError, StorageError
from broker.pki.container import SignedHeader, open_content_key, read_header, verify_header
from broker.pki.kit import recovery_secret
from broker.shell import backup_make
from broker.shell.backup import last_backup_at, tick_backups
from broker.shell.backup_file import check_content, open_into, read_end, write_body
from broker.shell.backup_make import BackupMade, BackupWish, make_backup
from broker.shell.ticks import Ticks
from broker.units import Millis
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.backup import BackupsView, ListBackups, TakeBackup
from broker.wire.codec import encode_body
from broker.wire.control import Fault
from broker.wire.ids import Service
from broker.wire.node import GetStatus, StatusView
from tests.shell.backup_desk import answer_of, backed_up, in_process, settle
from tests.shell.mesh_room import Room, pushed_clock
from tests.shell.office import PASSPHRASE, Office
from tests.support import eventually

MINUTE_MS = 60_000


def header_of(path: Path) -> SignedHeader:
    """Return the signed end of a backup."""
    return read_end(path)[0]


def is_running(office: Office) -> bool:
    """Whether a backup is under way now; asked anew each time."""
    return office.desk.state.backups.running


def check(path: Path) -> None:
    """Check a backup as somebody without the kit does."""
    found, size = read_end(path)
    check_content(path, verify_header(found), size)


def test_a_backup_is_sealed_signed_private_and_written_down(home: Path) -> None:
    """Everything of the node is in one file that says nothing to a thief."""
    office = Office.create(home)
    rows = office.ledger.head.sequence
    file = backed_up(office)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    header = verify_header(header_of(file), office.creation.pin)
    assert (header.host, header.sequence) == ("atlas", rows)
    check_content(file, header, read_end(file)[1])
    assert office.ledger.audit(-1, 1)[0].event == "backup.created"
    octets = file.read_bytes()
    for secret in (office.paths.credential.read_bytes(), PASSPHRASE.encode(), b"SQLite format"):
        assert secret not in octets


def test_no_leaf_key_and_no_credential_file_is_in_a_backup(home: Path) -> None:
    """Who finds backup and kit gets the CA; he does not get the identities of machines too."""
    room_key = home / "certs" / "atlas" / "live"
    office = Office.create(home)
    room_key.mkdir(parents=True)
    (room_key / "key.pem").write_text("a leaf key")
    desk = backed_up(office)
    place = home / "opened"
    place.mkdir(mode=0o700)
    header = read_header(header_of(desk).header)
    key = open_content_key(header, recovery_secret(office.creation.recovery))
    names = set(open_into(desk, header, key, place))
    assert {name.partition("/")[0] for name in names} == {"ledger.db", "membership.json", "ca"}
    assert not any("key.pem" in name or "ca-unlock" in name for name in names)


def test_the_program_writes_the_same_backup_beside_a_running_broker(home: Path) -> None:
    """What is tested in this process is what runs in its own."""
    office = Office.create(home)
    rows = office.ledger.head.sequence
    office.paths.settings.write_text('[node]\nname = "atlas"\n')
    wish = msgspec.json.encode(BackupWish(str(home / "one.cmbackup")))
    words = [sys.executable, "-m", "broker", "backup", str(office.paths.settings)]
    done = subprocess.run(words, input=wish, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    made = msgspec.json.decode(done.stdout, type=BackupMade)
    assert read_header(made.header).mesh_id == office.creation.mesh_id
    assert office.ledger.head.sequence == rows


def test_a_locked_node_makes_an_unsigned_backup_and_the_list_says_so(home: Path) -> None:
    """Better a backup that nobody vouches for than none; a person should know which it is."""
    office = Office.create(home)
    office.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    file = backed_up(office)
    assert header_of(file).signature == b""
    view = answer_of(office, Service.CONSOLE, ListBackups())
    assert isinstance(view, BackupsView)
    assert "not signed" in view.backups[0].problem


@pytest.mark.parametrize("place", ["chunks", "header", "signature", "magic", "end"])
def test_a_changed_backup_is_told_without_the_kit(home: Path, place: str) -> None:
    """A guardian of backups must not need the secret to see that one is bad (row 50)."""
    office = Office.create(home)
    file = backed_up(office)
    octets, signed = bytearray(file.read_bytes()), header_of(file)
    at = {
        "chunks": 5_000,
        "header": octets.index(signed.header) + 40,
        "signature": octets.index(signed.signature) + 10,
        "magic": 0,
        "end": len(octets) - 1,
    }[place]
    octets[at] ^= 1
    file.write_bytes(octets)
    with pytest.raises(BackupRejectedError):
        check(file)


@pytest.mark.parametrize("kept", [0, 15, 16, 70_000, -1])
def test_a_backup_that_was_cut_off_is_told(home: Path, kept: int) -> None:
    """The usual end of a full disk or a broken copy."""
    file = backed_up(Office.create(home))
    octets = file.read_bytes()
    file.write_bytes(octets[:kept])
    with pytest.raises(BackupRejectedError):
        check(file)


def test_a_header_that_somebody_else_signed_is_refused(home: Path) -> None:
    """An attacker knows the public recovery key: it is in the journal and in every backup."""
    first, second = home / "one", home / "two"
    first.mkdir()
    second.mkdir()
    ours, foreign = backed_up(Office.create(first)), backed_up(Office.create(second))
    header = read_header(header_of(ours).header)
    forged = msgspec.structs.replace(header, digest=read_header(header_of(foreign).header).digest)
    mixed = SignedHeader(encode_body(forged), header_of(foreign).signature)
    with pytest.raises(BackupRejectedError, match="signature"):
        verify_header(mixed)
    with pytest.raises(BackupRejectedError, match="another mesh"):
        verify_header(header_of(foreign), header.pin)


def test_only_the_newest_stay_and_only_after_a_success(home: Path) -> None:
    """A failing disk must not eat the good backups it still has."""
    with pushed_clock() as clock:
        office = Office.create(home, backup={"every": "0s", "keep": 2})
        made = []
        for _ in range(3):
            made.append(backed_up(office))
            clock.push(2_000)
        assert [path.exists() for path in made] == [False, True, True]

        def full(target: Path) -> BackupMade:
            raise StorageError(f"no room for {target}")

        office.desk.state.backups.make = full
        reply = answer_of(office, Service.CONSOLE, TakeBackup("ann"))
        assert isinstance(reply, Fault)
        assert reply.code == "storage"
        assert [path.exists() for path in made] == [False, True, True]


def test_a_backup_to_a_place_of_its_own_removes_nothing(home: Path) -> None:
    """Retention is about the directory of the settings."""
    with pushed_clock() as clock:
        office = Office.create(home, backup={"every": "0s", "keep": 1})
        kept = backed_up(office)
        clock.push(2_000)
        other = backed_up(office, str(home / "usb" / "mine.cmbackup"))
        assert kept.exists()
        assert other == home / "usb" / "mine.cmbackup"


def test_an_existing_file_is_not_overwritten(home: Path) -> None:
    """A name given twice is a mistake, and the first file may be the good one."""
    office = Office.create(home)
    file = backed_up(office)
    before = file.read_bytes()
    reply = answer_of(office, Service.CONSOLE, TakeBackup("ann", str(file)))
    assert isinstance(reply, Fault)
    assert reply.code == "conflict"
    assert file.read_bytes() == before


@pytest.mark.parametrize("damage", ["bit", "content"])
def test_what_the_disk_gives_back_wrong_never_gets_the_name_of_a_backup(
    home: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """A flipped bit, or sound octets of something else: read back, or it is no backup."""
    office = Office.create(home)
    target = home / "x.cmbackup"

    def flipping(staged: Path, key: bytes, files: dict[str, Path]) -> tuple[int, str]:
        """Write, and let the disk lose one bit of it."""
        written = write_body(staged, key, files)
        octets = bytearray(staged.read_bytes())
        octets[len(octets) // 2] ^= 1
        staged.write_bytes(octets)
        return written

    def mistaken(staged: Path, key: bytes, files: dict[str, Path]) -> tuple[int, str]:
        """Write one file in place of another."""
        first, *_, last = files
        return write_body(staged, key, {**files, first: files[last]})

    faulty = {"bit": flipping, "content": mistaken}
    monkeypatch.setattr(backup_make, "write_body", faulty[damage])
    with pytest.raises(BackupRejectedError):
        make_backup(office.paths, target)
    assert not target.exists()
    assert not list(home.glob(".x*"))


def test_a_ledger_that_cannot_be_copied_whole_yields_no_backup(home: Path) -> None:
    """Half a journal under the name of a backup would be believed on the worst day."""
    office = Office.create(home)
    target = home / "x.cmbackup"
    damaged = office.paths.ledger.read_bytes()
    office.ledger.close()
    office.paths.ledger.write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(Exception, match=r"ledger|damaged|copied"):
        make_backup(office.paths, target)
    assert not target.exists()
    assert not list(home.glob(".x*"))
    assert not list(home.glob("backup.new-*"))


def test_one_backup_at_a_time(home: Path) -> None:
    """Two at once would double the load and gain nothing (row 52)."""
    office = Office.create(home)
    office.desk.state.backups.running = True
    with pytest.raises(BusyError):
        office.ask(Service.CONSOLE, TakeBackup("ann"), BackupsView)


def test_what_a_killed_program_left_behind_is_swept_up(home: Path) -> None:
    """The copy of the ledger lies in the clear: it must not stay."""
    office = Office.create(home)
    stale = home / "backup.new-dead"
    stale.mkdir()
    (stale / "ledger.db").write_bytes(b"rows")
    (home / "backup").mkdir()
    half = home / "backup" / ".certmesh-home-atlas-1.cmbackup.new"
    half.write_bytes(b"half")
    file = backed_up(office)
    assert file.exists()
    assert not stale.exists()
    assert not half.exists()


def test_backups_are_made_by_themselves_on_time_and_once(home: Path) -> None:
    """Nobody remembers to make backups."""
    with pushed_clock() as clock:
        office = Office.create(home, backup={"every": "1h"})
        in_process(office)
        ticks = Ticks(office.desk.state)

        def tick() -> None:
            batch = office.desk.open_batch()
            ticks.run(batch, Millis(clock.ns // 1_000_000), int(clock.wall()))  # type: ignore[arg-type]  # seconds
            office.desk.finish(batch, [])

        tick()
        assert not is_running(office)
        clock.push(6 * MINUTE_MS)
        tick()
        eventually(lambda: settle(office) or last_backup_at(office.desk.state))
        clock.push(30 * MINUTE_MS)
        tick()
        assert not is_running(office)
        clock.push(31 * MINUTE_MS)
        tick()
        assert is_running(office)
        eventually(lambda: settle(office) or not is_running(office))
        assert len(list((home / "backup").glob("*.cmbackup"))) == 2


def test_a_failure_is_in_the_status_and_tried_again_later(home: Path) -> None:
    """A backup that fails silently is found on the day it is needed."""
    with pushed_clock() as clock:
        office = Office.create(home, backup={"every": "1h"})

        def full(target: Path) -> BackupMade:
            raise StorageError(f"no room for {target.name}")

        state = office.desk.state
        state.backups.make = full
        clock.push(6 * MINUTE_MS)
        tick_backups(state, Millis(clock.ns // 1_000_000), int(clock.wall()))  # type: ignore[arg-type]  # seconds
        eventually(lambda: settle(office) or state.backups.failure)
        status = office.ask(Service.CONSOLE, GetStatus(), StatusView)
        assert any("the last backup failed: no room" in text for text in status.warnings)
        tick_backups(state, Millis(clock.ns // 1_000_000), int(clock.wall()))  # type: ignore[arg-type]  # seconds
        assert not is_running(office)
        clock.push(11 * MINUTE_MS)
        tick_backups(state, Millis(clock.ns // 1_000_000), int(clock.wall()))  # type: ignore[arg-type]  # seconds
        assert is_running(office)
        eventually(lambda: settle(office) or not is_running(office))


def test_a_standby_makes_backups_of_its_own_and_writes_no_rows(home: Path) -> None:
    """The primary's disk may be the one that burns; the journal stays the primary's to write."""
    with pushed_clock() as clock:
        room = Room.open(home, clock, "birch")
        room.nominate("birch")
        birch = room["birch"].office
        rows = birch.ledger.head.sequence
        file = backed_up(birch)
        header = verify_header(header_of(file), birch.creation.pin)
        assert (header.host, header.sequence) == ("birch", rows)
        assert birch.ledger.head.sequence == rows
        assert last_backup_at(birch.desk.state) is not None


def test_a_member_has_nothing_to_back_up(home: Path) -> None:
    """Its key is remade by joining again."""
    with pushed_clock() as clock:
        room = Room.open(home, clock, "cedar")
        with pytest.raises(Exception, match="holds no CA key"):
            room["cedar"].ask(Service.CONSOLE, TakeBackup("ann"), BackupsView)
