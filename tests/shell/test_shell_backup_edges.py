"""Edges of backup, restore and destruction: shared places, second attempts, a restored copy."""

import shutil
from pathlib import Path

import pytest
from cryptography import x509

from broker.errors import NotAMemberError, StorageError
from broker.shell import restore as restoring
from broker.shell.destroy import destroy_mesh
from broker.wire.backup import DestroyWish, TakeBackup
from broker.wire.control import Fault
from broker.wire.enrollment import GetTrust, TrustAnswer
from broker.wire.ids import Service
from broker.wire.roster import RevocationAnswer, RevokeMember, WhoAmI, WhoAmIAnswer
from tests.shell.backup_desk import Home, answer_of, backed_up, come_back, reborn
from tests.shell.mesh_room import Room, pushed_clock
from tests.shell.office import Office
from tests.shell.scenes import Make, fail_over


def test_retention_never_takes_a_backup_of_another_node(home: Path) -> None:
    """Several nodes keep their backups on one share: `atlas` must not eat those of `atlas-2`."""
    with pushed_clock() as clock:
        office = Office.create(home, backup={"every": "0s", "keep": 1})
        first = backed_up(office)
        series = first.name.rpartition("-")[0]
        others = [
            first.with_name(f"{series}-2-20200101T000000Z.cmbackup"),  # of the host `atlas-2`
            first.with_name(f"{series}-20200101T000000Z.cmbackup"),  # unreadable: whose is it?
        ]
        for other in others:
            other.write_bytes(b"somebody else's")
        clock.push(2_000)
        second = backed_up(office)
        assert [path.exists() for path in (first, second, *others)] == [False, True, True, True]


def test_a_backup_is_not_written_to_a_place_that_depends_on_where_the_broker_runs(
    home: Path,
) -> None:
    """The command sends whole paths; a program on the API that does not is told so."""
    office = Office.create(home)
    for path in ("mine.cmbackup", "../mine.cmbackup", f"{home}/a\0b"):
        reply = answer_of(office, Service.CONSOLE, TakeBackup("ann", path))
        assert isinstance(reply, Fault)
        assert reply.code == "malformed"
    assert not office.desk.state.backups.running


def test_a_restore_that_died_behind_the_other_ca_can_be_repeated(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup of a rollover holds two CAs; the second one in place must not block a retry."""
    office = Office.create(home)
    shutil.copytree(office.paths.authority, office.paths.data / f"ca.aside-{'a' * 16}")
    file = backed_up(office)
    new = Home.empty(home / "new", office.settings)

    def dies(*_: object) -> None:
        raise StorageError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(restoring, "write_membership", dies)
        with pytest.raises(StorageError, match="killed here"):
            new.restore(file, office.creation.recovery)
    new.restore(file, office.creation.recovery)
    assert (new.paths.data / f"ca.aside-{'a' * 16}" / "keys.sealed").exists()


def test_a_destruction_takes_what_unfinished_attempts_left_as_well(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vault and the file that opens it, set aside by a retry, are the whole CA."""
    office = Office.create(home)
    file = backed_up(office)
    new = Home.empty(home / "new", office.settings)

    def dies(*_: object) -> None:
        raise StorageError("killed here")

    with monkeypatch.context() as patched:
        patched.setattr(restoring, "write_membership", dies)
        with pytest.raises(StorageError):
            new.restore(file, office.creation.recovery)
    new.restore(file, office.creation.recovery)
    destroy_mesh(new.paths, DestroyWish("home", "ann"))
    names = {"keys.sealed", "ca-unlock"}
    assert [path for path in new.paths.home.rglob("*") if path.name in names] == []


def test_a_restored_copy_that_must_not_lead_can_be_destroyed(room: Room) -> None:
    """Its own warning says so: the one that leads holds the key, and this roster knows it."""
    file = backed_up(room["atlas"].office)
    fail_over(room)
    room.run(3_000)
    atlas = reborn(room, file, room["atlas"].office.creation.recovery)
    office = atlas.office
    rows = office.ledger.head.sequence
    office.ledger.close()
    done = destroy_mesh(office.paths, DestroyWish("home", "ann"))
    assert done.rows == rows  # the mesh lives on: its journal has no last row
    assert not office.paths.authority.exists()


def test_a_restored_standby_that_must_not_lead_can_be_destroyed(room: Room) -> None:
    """The same for a copy of a standby, which never led."""
    file = backed_up(room["birch"].office)
    birch = reborn(room, file, room["atlas"].office.creation.recovery, "birch")
    birch.office.ledger.close()
    destroy_mesh(birch.office.paths, DestroyWish("home", "ann"))
    assert not birch.office.paths.authority.exists()


def test_a_revocation_that_only_the_living_knew_stays_in_the_list_of_an_heir(make: Make) -> None:
    """Software that reads revocation lists must not let the host in again after a failover."""
    room = make("cedar")
    file = backed_up(room["atlas"].office)
    late = room.join("elder", 9)
    serial = int(late.peer.serial, 16)
    room.run(2_000)
    wish = RevokeMember(host="elder", reason="stolen", operator="ann", dry_run=False)
    room.primary().ask(Service.CONSOLE, wish, RevocationAnswer)
    room.run(5_000)
    atlas = reborn(room, file, room["atlas"].office.creation.recovery)
    del room.nodes["elder"]
    come_back(room, atlas)
    room.run(5_000)
    assert serial in listed(room, "atlas")
    atlas.note_certificate()
    room.nominate("cedar")
    fail_over(room, heir="cedar")
    room.run(5_000)
    assert serial in listed(room, "cedar")
    with pytest.raises(NotAMemberError):
        room["cedar"].ask(Service.GATEWAY, WhoAmI(late.peer), WhoAmIAnswer)


def listed(room: Room, host: str) -> set[int]:
    """Return the serials in the revocation list that a node serves."""
    trust = room[host].ask(Service.GATEWAY, GetTrust(), TrustAnswer)
    return {each.serial_number for each in x509.load_der_x509_crl(trust.crl)}
