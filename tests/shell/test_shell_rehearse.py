"""A takeover on copies: what it proves, what it refuses, and that nothing of it remains."""

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from broker.clock import wall_s
from broker.errors import KeyRejectedError, StorageError
from broker.pki.chain import read_certificate
from broker.runtime.exits import Exit
from broker.runtime.paths import node_paths
from broker.shell.copies import SPARE_BYTES, copy_authority, copy_ledger, require_room
from broker.shell.rehearse import Trial
from broker.shell.throwaway import LIFETIME_S, throwaway, verify_path
from broker.units import UnixSeconds
from broker.wire.console_api import Rehearsal, RehearsalStep
from broker.wire.facts import MemberRevoked
from tests.shell.rehearsal_mesh import DrillMesh
from tests.support import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mesh(home: Path) -> DrillMesh:
    """A primary with a standby and a member."""
    return DrillMesh.whole(home / "node")


@pytest.fixture
def rehearsed(home: Path) -> Callable[[DrillMesh], Rehearsal]:
    """Rehearse in this process, in a directory of its own."""

    def run(mesh: DrillMesh) -> Rehearsal:
        place = home / "copies"
        place.mkdir(mode=0o700)
        trial = Trial(mesh.paths, place)
        try:
            return trial.run()
        finally:
            trial.close()

    return run


Rehearse = Callable[[DrillMesh], Rehearsal]


def step(found: Rehearsal, name: str) -> RehearsalStep:
    """Return one answer."""
    return next(step for step in found.steps if step.name == name)


def states(found: Rehearsal) -> dict[str, str]:
    """Return all answers in short."""
    return {step.name: step.state for step in found.steps}


def test_a_healthy_key_holder_takes_over_on_copies(mesh: DrillMesh, rehearsed: Rehearse) -> None:
    """The whole way: copy, verify, open the key, a new term, a certificate."""
    found = rehearsed(mesh)
    names = ("copies", "journal", "roster", "keys", "takeover", "certificate")
    assert states(found) == dict.fromkeys(names, "ok"), found
    assert (found.host, found.primary, found.standbys) == ("atlas", "atlas", ("nas",))
    assert (found.others, found.term, found.sequence) == (2, 1, 6)
    assert found.survives_until is not None
    assert step(found, "takeover").detail == "term 1 to 2, in the copy"
    assert "one for nas" in step(found, "certificate").detail


def test_a_rehearsal_changes_no_live_file(mesh: DrillMesh, rehearsed: Rehearse) -> None:
    """Not the ledger, not the keys, and not the term."""
    before = mesh.live()
    rehearsed(mesh)
    assert mesh.live() == before
    ledger = mesh.open()
    assert (ledger.term, ledger.head.sequence) == (1, 6)
    ledger.close()


def test_a_rehearsal_runs_beside_a_writing_broker(mesh: DrillMesh, rehearsed: Rehearse) -> None:
    """What is committed is copied, also from the log beside the file; what is open is not."""
    ledger = mesh.open()
    ledger.begin()
    ledger.set_term(5)
    ledger.commit()
    ledger.begin()
    ledger.set_term(9)
    found = rehearsed(mesh)
    assert found.term == 5
    assert states(found)["takeover"] == "ok"
    ledger.commit()
    ledger.close()


def test_a_log_that_a_crash_left_is_read_and_left_alone(
    mesh: DrillMesh, home: Path, rehearsed: Rehearse
) -> None:
    """The broker itself decides at its next start what becomes of it."""
    ledger = mesh.open()
    ledger.set_term(5)
    crashed = home / "crashed"
    shutil.copytree(mesh.paths.home, crashed, ignore=shutil.ignore_patterns("*-shm"))
    ledger.close()
    left = DrillMesh(node_paths(crashed / "certmesh.toml", mesh.settings), mesh.settings)
    before = left.live()
    assert rehearsed(left).term == 5
    assert before.items() <= left.live().items()


def test_the_copies_are_closed_to_others(mesh: DrillMesh, home: Path) -> None:
    """Sealed keys are still keys."""
    copy_ledger(mesh.paths.ledger, home / "ledger.db")
    assert copy_authority(mesh.paths.authority, home / "ca") == 3
    assert stat.S_IMODE((home / "ca").stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "ledger.db").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "ca" / "keys.sealed").stat().st_mode) == 0o600


def test_keys_that_a_crash_left_beside_their_place_are_rehearsed_too(
    mesh: DrillMesh, rehearsed: Rehearse
) -> None:
    """The broker would find them there after a restart, so the drill must."""
    mesh.paths.authority.rename(mesh.paths.authority.with_name("ca.old"))
    assert states(rehearsed(mesh))["keys"] == "ok"


def test_a_key_without_credential_file_needs_a_person(mesh: DrillMesh, rehearsed: Rehearse) -> None:
    """A warning, not a failure: it is open now, and locked after the next start."""
    mesh.paths.credential.unlink()
    found = rehearsed(mesh)
    assert step(found, "keys").state == "warn"
    assert "needs a person" in step(found, "keys").detail
    assert step(found, "certificate").state == "skip"
    assert step(found, "takeover").state == "ok"


def test_a_vault_without_credential_slot_needs_a_person(home: Path, rehearsed: Rehearse) -> None:
    """A passphrase opens it, and nobody rehearses a passphrase."""
    found = rehearsed(DrillMesh.create(home / "node", credential=False))
    assert step(found, "keys").state == "warn"


def test_a_credential_that_does_not_open_fails_the_drill(
    mesh: DrillMesh, rehearsed: Rehearse
) -> None:
    """Better now than in the night the primary dies; without a key nothing is taken over."""
    mesh.paths.credential.write_bytes(bytes(32))
    found = rehearsed(mesh)
    assert step(found, "keys").state == "fail"
    assert not {"takeover", "certificate"} & set(states(found))


def test_keys_of_another_mesh_fail_the_drill(
    mesh: DrillMesh, home: Path, rehearsed: Rehearse
) -> None:
    """They open, and certify nothing that members of this mesh would trust."""
    other = DrillMesh.create(home / "other")
    for path in other.paths.authority.iterdir():
        (mesh.paths.authority / path.name).write_bytes(path.read_bytes())
    mesh.paths.credential.write_bytes(other.paths.credential.read_bytes())
    told = step(rehearsed(mesh), "keys")
    assert (told.state, "the pin disagree" in told.detail) == ("fail", True)


def test_a_revoked_key_holder_fails_the_drill(mesh: DrillMesh, rehearsed: Rehearse) -> None:
    """The key still opens; the roster will never name its holder as primary again."""
    ledger = mesh.open()
    own = ledger.member_by_host("atlas")
    ledger.close()
    assert own is not None
    mesh.write(MemberRevoked(own.member_id, own.host, "stolen"))
    found = rehearsed(mesh)
    assert step(found, "takeover").state == "fail"
    assert "names nobody as primary" in step(found, "takeover").detail
    assert "certificate" not in states(found)


def test_a_damaged_journal_ends_the_drill(mesh: DrillMesh, rehearsed: Rehearse) -> None:
    """Nothing after it would mean anything; that it is one is said at once."""
    spoil(
        mesh, "DROP TRIGGER journal_is_append_only", "UPDATE journal SET at = 1 WHERE sequence = 2"
    )
    found = rehearsed(mesh)
    assert states(found) == {"copies": "ok", "journal": "fail"}
    assert "row 2" in step(found, "journal").detail


def test_tables_that_are_not_the_fold_fail_the_drill(mesh: DrillMesh, rehearsed: Rehearse) -> None:
    """The chain proves the journal alone; a rotted table would be shipped as truth."""
    spoil(mesh, "UPDATE members SET role = 'standby' WHERE host = 'pi'")
    told = step(rehearsed(mesh), "journal")
    assert (told.state, "members" in told.detail) == ("fail", True)


def spoil(mesh: DrillMesh, *statements: str) -> None:
    """Change the live ledger behind its back."""
    connection = sqlite3.connect(mesh.paths.ledger)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_mesh_without_standby_fails_the_drill_and_shows_the_rest(
    home: Path, rehearsed: Rehearse
) -> None:
    """The one thing that is missing, with the command that adds it."""
    mesh = DrillMesh.create(home / "node")
    mesh.certify("atlas")
    found = rehearsed(mesh)
    told = step(found, "roster")
    assert (told.state, "standby nominate" in told.hint) == ("fail", True)
    assert states(found)["certificate"] == "ok"


def test_a_node_without_roster_is_sent_to_a_key_holder(home: Path, rehearsed: Rehearse) -> None:
    """A member's ledger has no rows: there is nothing to rehearse."""
    mesh = DrillMesh.create(home / "node")
    mesh.paths.ledger.unlink()
    mesh.open().close()
    told = step(rehearsed(mesh), "journal")
    assert (told.state, "run the drill on the primary or a standby" in told.hint) == ("fail", True)


def test_a_node_without_mesh_fails_in_words(home: Path, rehearsed: Rehearse) -> None:
    """No traceback about a file."""
    mesh = DrillMesh.create(home / "node")
    mesh.paths.membership.unlink()
    assert states(rehearsed(mesh)) == {"copies": "fail"}


def test_a_copy_never_fills_the_disk(home: Path) -> None:
    """A broker may write to the same one."""
    require_room(1000, 1000 + SPARE_BYTES, home)
    with pytest.raises(StorageError, match="MiB free") as refused:
        require_room(1000, 999 + SPARE_BYTES, home)
    assert "TMPDIR" in refused.value.hint


def test_the_throwaway_certificate_lives_for_a_minute(mesh: DrillMesh) -> None:
    """It is a real one: if it leaked, it would be worth nothing before anybody noticed."""
    ledger, now = mesh.open(), wall_s()
    member, row = ledger.member_by_host("pi"), ledger.mesh()
    ledger.close()
    assert member is not None
    assert row is not None
    made = throwaway(mesh.issuer(), row, member, now)
    assert made.not_after == now + LIFETIME_S
    found = read_certificate(made.certificate)
    assert found.not_valid_after_utc.timestamp() == now + LIFETIME_S
    assert made.replaces == member.current_serial
    assert made.key_hash != throwaway(mesh.issuer(), row, member, now).key_hash


def test_a_certificate_that_peers_would_refuse_is_no_success(mesh: DrillMesh) -> None:
    """The key signs it, and the issuing certificate is not valid yet by the clock of this node."""
    ledger = mesh.open()
    member, row = ledger.member_by_host("pi"), ledger.mesh()
    ledger.close()
    assert member is not None
    assert row is not None
    with pytest.raises(KeyRejectedError, match="peers would refuse"):
        throwaway(mesh.issuer(), row, member, UnixSeconds(wall_s() - 86_400))


def test_what_peers_would_refuse_fails_the_drill(mesh: DrillMesh, home: Path) -> None:
    """Another name, another root, another time: the path is walked as a peer walks it."""
    ledger, now = mesh.open(), wall_s()
    member, row = ledger.member_by_host("pi"), ledger.mesh()
    ledger.close()
    assert member is not None
    assert row is not None
    leaf, issuer = throwaway(mesh.issuer(), row, member, now).certificate, mesh.issuer()
    verify_path(issuer, leaf, "pi.home.internal", now)
    stranger = DrillMesh.create(home / "other").issuer()
    for certificate, name, at in (
        (issuer, "nas.home.internal", now),
        (stranger, "pi.home.internal", now),
        (issuer, "pi.home.internal", now + LIFETIME_S + 1),
    ):
        with pytest.raises(KeyRejectedError, match="peers would refuse"):
            verify_path(certificate, leaf, name, UnixSeconds(at))


def command(mesh: DrillMesh, place: Path) -> subprocess.Popen[bytes]:
    """Start the program, with its copies below `place`."""
    return subprocess.Popen(
        [sys.executable, "-m", "broker", "rehearse", str(mesh.paths.settings)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.faults
def test_the_program_prints_one_object_and_leaves_nothing_behind(
    mesh: DrillMesh, home: Path
) -> None:
    """What the command reads."""
    place = home / "tmp"
    place.mkdir()
    with command(mesh, place) as child:
        out, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (Exit.OK, b"")
    assert set(states(msgspec.json.decode(out, type=Rehearsal)).values()) == {"ok"}
    assert list(place.iterdir()) == []


@pytest.mark.faults
def test_a_failed_rehearsal_leaves_nothing_behind(mesh: DrillMesh, home: Path) -> None:
    """Key material goes away whatever happened; the failure is in the object."""
    place = home / "tmp"
    place.mkdir()
    spoil(mesh, "UPDATE members SET role = 'standby' WHERE host = 'pi'")
    with command(mesh, place) as child:
        out, _ = child.communicate(timeout=30)
    assert child.returncode == Exit.FAILED
    assert states(msgspec.json.decode(out, type=Rehearsal))["journal"] == "fail"
    assert list(place.iterdir()) == []


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_rehearsal_leaves_nothing_behind(
    number: signal.Signals, mesh: DrillMesh, home: Path
) -> None:
    """Whoever is impatient must not leave keys in a temporary directory."""
    place = home / "tmp"
    place.mkdir()
    mesh.paths.membership.unlink()
    os.mkfifo(mesh.paths.membership)  # reading it waits for a writer, so the copies stand still
    with command(mesh, place) as child:
        try:
            eventually(lambda: list(place.iterdir()), 20)
            child.send_signal(number)
            child.communicate(timeout=20)
        finally:
            child.kill()
    assert child.returncode == Exit.INTERRUPTED
    assert list(place.iterdir()) == []
