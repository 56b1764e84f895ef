"""The end of a mesh on purpose: complete, repeatable after a crash, and with its history kept."""

import json
import shutil
from pathlib import Path

import pytest

from broker.errors import ConflictError, MeshExistsError, NoMeshError, NotPrimaryError, StorageError
from broker.ledger.file import inspect_file
from broker.pki.kit import recovery_text
from broker.runtime.paths import node_paths
from broker.shell.create import create_mesh
from broker.shell.destroy import TRAIL, destroy_mesh
from broker.wire.backup import Destroyed, DestroyWish
from tests.creation import wished
from tests.shell.backup_desk import Home, backed_up
from tests.shell.mesh_room import Room
from tests.shell.office import PASSPHRASE, Office

WISH = DestroyWish("home", "ann")


def closed(home: Path) -> Office:
    """Return a mesh whose broker is not running, with a leaf key on disk."""
    office = Office.create(home)
    office.ledger.close()
    key = office.paths.certificates / "atlas" / "v0001" / "key.pem"
    key.parent.mkdir(parents=True)
    key.write_text("a leaf key")
    (office.paths.certificates / "atlas" / "live").symlink_to("v0001")
    kept = office.paths.data / "ca.kept"
    kept.mkdir()
    (kept / "keys.sealed").write_bytes(b"an older root key")
    return office


def secrets_left(office: Office) -> list[str]:
    """Return what is still there of keys."""
    names = {"keys.sealed", "key.pem", "ca-unlock", "root.pem"}
    return [str(path) for path in office.paths.home.rglob("*") if path.name in names]


def test_defect_35_the_audit_trail_survives_and_its_last_row_says_who_ended_it(home: Path) -> None:
    """The reference deletes the audit log with the CA: the one time when it is evidence."""
    office = closed(home)
    done = destroy_mesh(office.paths, WISH)
    kept = Path(done.kept)
    verdict = inspect_file(kept / "ledger.db")
    assert (verdict.first_bad, verdict.rows) == (None, done.rows)
    lines = [json.loads(line) for line in (kept / TRAIL).read_text().splitlines()]
    assert len(lines) == done.rows
    assert (lines[-1]["event"], lines[-1]["actor"]) == ("mesh.destroyed", "ann")


def test_no_key_is_left_and_the_membership_is_gone(home: Path) -> None:
    """Sealed, set aside, or in a link: all of them."""
    office = closed(home)
    assert len(secrets_left(office)) > 3
    destroy_mesh(office.paths, WISH)
    assert secrets_left(office) == []
    assert not office.paths.membership.exists()
    with pytest.raises(NoMeshError):
        destroy_mesh(office.paths, WISH)


def test_keys_are_overwritten_before_they_are_removed(home: Path) -> None:
    """A hard link, such as a snapshot tool makes, keeps the file: it must not keep the key."""
    office = closed(home)
    link = home / "snapshot"
    link.hardlink_to(office.paths.credential)
    before = link.read_bytes()
    destroy_mesh(office.paths, WISH)
    assert link.read_bytes() != before


def test_another_name_changes_nothing(home: Path) -> None:
    """The name is the last chance to notice that this is the wrong machine."""
    office = closed(home)
    before = Home(office.settings, office.paths).state()
    with pytest.raises(ConflictError, match="belongs to the mesh home"):
        destroy_mesh(office.paths, DestroyWish("work", "ann"))
    assert Home(office.settings, office.paths).state() == before


def test_defect_33_a_new_mesh_can_be_made_where_one_was_destroyed(home: Path) -> None:
    """The reference answers `already exists` for ever."""
    office = closed(home)
    destroy_mesh(office.paths, WISH)
    made = create_mesh(office.settings, office.paths, wished("again", PASSPHRASE))
    assert made.mesh_id != office.creation.mesh_id


def test_a_backup_brings_a_destroyed_mesh_back_to_whoever_has_the_kit(home: Path) -> None:
    """Destroying keys is not destroying backups, and the command says so."""
    office = Office.create(home)
    file = backed_up(office)
    office.ledger.close()
    destroy_mesh(office.paths, WISH)
    assert file.exists()
    restored = Home(office.settings, office.paths).restore(file, office.creation.recovery)
    assert restored.mesh_id == office.creation.mesh_id
    with pytest.raises(MeshExistsError):
        Home(office.settings, office.paths).restore(file, office.creation.recovery)


def test_a_standby_that_would_take_over_has_to_go_first(room: Room) -> None:
    """Half a destruction is a failover."""
    atlas = room["atlas"].office
    atlas.ledger.close()
    with pytest.raises(ConflictError, match="birch holds the CA key too"):
        destroy_mesh(atlas.paths, WISH)
    assert secrets_left(atlas)


def test_only_the_primary_ends_a_mesh(room: Room) -> None:
    """A member that wants to go leaves; it ends nothing for others."""
    for host in ("birch", "cedar"):
        office = room[host].office
        office.ledger.close()
        with pytest.raises(NotPrimaryError):
            destroy_mesh(office.paths, WISH)
        assert office.paths.membership.exists()


@pytest.mark.parametrize("stage", ["row", "trail", "ledger", "keys"])
def test_a_destruction_that_was_cut_short_goes_on(home: Path, stage: str) -> None:
    """Killed anywhere, the same command ends it, with one last row and one place for history."""
    office = closed(home)
    first = _cut_after(office, stage)
    done = destroy_mesh(office.paths, WISH)
    assert secrets_left(office) == []
    kept = sorted(office.paths.data.glob("destroyed-*"))
    assert [str(path) for path in kept] == [done.kept]
    assert done.rows == first.rows
    events = [json.loads(line)["event"] for line in (kept[0] / TRAIL).read_text().splitlines()]
    assert events.count("mesh.destroyed") == 1


def test_history_of_a_mesh_with_a_longer_name_keeps_nothing_from_being_destroyed(
    home: Path,
) -> None:
    """`home-lab` was destroyed here once; the retry for `home` must find its own place."""
    office = closed(home)
    first = _cut_after(office, "keys")
    older = office.paths.data / "destroyed-home-lab-20260101T000000Z"
    older.mkdir()
    (older / "membership.json").write_text("{}")
    done = destroy_mesh(office.paths, WISH)
    assert (secrets_left(office), done.rows) == ([], first.rows)


def _cut_after(office: Office, stage: str) -> Destroyed:
    """Leave the disk as a kill after `stage` leaves it, by doing all on a copy."""
    paths = office.paths
    copy = paths.home.with_name(paths.home.name + "-copy")
    shutil.copytree(paths.home, copy, symlinks=True)
    done = destroy_mesh(node_paths(copy / "certmesh.toml", office.settings), WISH)
    kept = Path(done.kept)
    here = paths.data / kept.name
    shutil.copy(kept / "ledger.db", paths.ledger)
    for tail in ("-wal", "-shm"):
        Path(f"{paths.ledger}{tail}").unlink(missing_ok=True)
    if stage in {"trail", "ledger", "keys"}:
        here.mkdir(mode=0o700)
        shutil.copy(kept / TRAIL, here / TRAIL)
    if stage in {"ledger", "keys"}:
        paths.ledger.rename(here / "ledger.db")
    if stage == "keys":
        paths.credential.unlink()
        (paths.authority / "keys.sealed").unlink()
    shutil.rmtree(copy)
    return done


def test_a_disk_that_refuses_leaves_a_node_that_can_be_destroyed_again(home: Path) -> None:
    """What could not be done is said, not skipped."""
    office = closed(home)
    block = office.paths.data / "destroyed-home-20000101T000000Z"
    block.write_text("in the way")
    with pytest.raises(StorageError, match="not destroyed yet"):
        destroy_mesh(office.paths, WISH)
    assert office.paths.membership.exists()
    assert secrets_left(office)
    block.unlink()
    destroy_mesh(office.paths, WISH)
    assert not office.paths.membership.exists()


def test_the_printed_secret_is_nowhere_on_the_disk(home: Path) -> None:
    """The kit is paper; a disk that had it would open every backup."""
    office = Office.create(home)
    secret = office.creation.recovery
    assert recovery_text(bytes(32)) != secret
    for path in home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes()
            assert secret.replace("-", "").encode() not in path.read_bytes()
