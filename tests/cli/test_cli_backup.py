"""Kit, backup, restore, export and destroy, as a person or a script types them."""

import shutil
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.cli.commands import destroy
from broker.cli.nodeoptions import NodeOptions
from broker.cli.rebuild import rebuilt_home
from broker.core.observation import Standing
from broker.core.phases import Phase
from broker.ledger.sqlite import Ledger
from broker.pki.kit import recovery_secret
from broker.runtime.exits import Exit
from broker.runtime.paths import Paths
from broker.shell.standing import LOCAL_ELECTION
from broker.units import UnixSeconds
from broker.wire.backup import BackupBody, BackupLine, BackupsView, BackupView
from broker.wire.codec import encode_body
from broker.wire.enrollment import TrustAnswer
from tests.cli.command import Certmesh
from tests.cli.fake_console import FakeConsole
from tests.shell.backup_desk import backed_up
from tests.shell.office import Office

FAST = ("--setting", "ca.kdf_memory=8388608", "--setting", "ca.kdf_passes=1")
LOCAL = ("--listen", "127.0.0.1", "--node-name", "atlas", "--profile", "solo", *FAST)
LINE = BackupLine("a.cmbackup", "/b/a.cmbackup", 99, UnixSeconds(1_700_000_000), 2, 7, "ab" * 32)


@pytest.fixture
def lost(home: Path) -> Iterator[tuple[Path, Path]]:
    """Return a backup of a mesh whose machine is gone, and its kit."""
    place = home.with_name(f"{home.name}-lost")
    place.mkdir(mode=0o700)
    office = Office.create(place)
    office.paths.settings.write_text(
        '# kept\n[node]\nname = "atlas"\ndata_dir = ""\naddresses = ["10.0.0.5"]\n'
        '[listen]\nenroll = "127.0.0.1:19698"\nmesh = "127.0.0.1:19699"\n'
        "[ca]\nkdf_memory = 8388608\nkdf_passes = 1\n"
    )
    file = backed_up(office, str(place / "one.cmbackup"))
    kit = place / "kit.txt"
    kit.write_text(f"secret\n  {office.creation.recovery.replace('-', ' ')}\n")
    kit.chmod(0o600)
    office.ledger.close()
    yield file, kit
    shutil.rmtree(place)


def test_init_writes_the_kit_once_private_and_keeps_it_off_the_screen(
    home: Path, certmesh: Certmesh
) -> None:
    """A scrollback is no safe."""
    kit = home.with_name(f"{home.name}.kit")
    said = certmesh("init", "home", "--kit", str(kit), *LOCAL)
    assert said.status == Exit.OK, said.err
    text = kit.read_text()
    secret = recovery_secret(text)
    assert stat.S_IMODE(kit.stat().st_mode) == 0o600
    assert "recovery " not in said.out
    assert len(secret) == 32
    kit.unlink()


def test_without_a_file_the_recovery_secret_is_shown_once_with_what_it_is_for(
    home: Path, certmesh: Certmesh
) -> None:
    """Whoever does not ask for a kit still gets one chance to write it down."""
    said = certmesh("init", "home", *LOCAL)
    assert said.status == Exit.OK, said.err
    assert recovery_secret(said.out)
    for path in home.rglob("*"):
        if path.is_file():
            assert b"recovery kit" not in path.read_bytes()


def test_a_kit_that_cannot_be_written_is_found_before_anything_is_made(
    home: Path, certmesh: Certmesh
) -> None:
    """A mesh without its kit would be one that nobody can restore."""
    there = home / "kit.txt"
    there.write_text("an older kit")
    said = certmesh("init", "home", "--kit", str(there), *LOCAL)
    assert said.status == Exit.CONFLICT
    assert there.read_text() == "an older kit"
    assert not (home / "membership.json").exists()


def test_a_disk_that_refuses_the_kit_costs_neither_the_secret_nor_the_passphrase(
    home: Path, certmesh: Certmesh
) -> None:
    """The mesh is made by then: what is shown once, and nowhere written, must be shown."""
    said = certmesh("init", "home", "--kit", "/proc/kit.txt", *LOCAL)
    assert said.status == Exit.ATTENTION, said.err
    assert "cannot write /proc/kit.txt" in said.err
    assert recovery_secret(said.out)
    assert "passphrase" in said.out
    assert (home / "membership.json").exists()


def test_create_says_where_it_is_and_asks_with_an_absolute_path(
    certmesh: Certmesh, console: FakeConsole, tmp_path: Path
) -> None:
    """The broker has another working directory."""
    console.answer("POST", "/v1/backups", BackupView(LINE, ("old.cmbackup",)))
    said = certmesh("backup", "create", "-o", str(tmp_path / "x"))
    assert said.status == Exit.OK, said.err
    assert "/b/a.cmbackup" in said.out
    assert "read back and verified" in said.out
    asked = msgspec.json.decode(console.asked[-1].body, type=BackupBody)
    assert asked.path == str(tmp_path / "x")


def test_list_shows_what_is_wrong_with_a_backup(certmesh: Certmesh, console: FakeConsole) -> None:
    """A bad one in a list of good ones must be seen."""
    bad = msgspec.structs.replace(LINE, name="b.cmbackup", problem="the content is cut off")
    view = BackupsView((LINE, bad), "/b", 86_400, UnixSeconds(1_700_086_400))
    console.answer("GET", "/v1/backups", view)
    said = certmesh("backup", "list")
    assert "cut off" in said.out
    assert certmesh("backup", "list", "--json").body["backups"][1]["problem"]


def test_verify_needs_no_node_and_with_the_kit_opens_everything(
    certmesh: Certmesh, lost: tuple[Path, Path], home: Path
) -> None:
    """On any machine with the program."""
    file, kit = lost
    before = sorted(home.iterdir())
    blind = certmesh("backup", "verify", str(file), "--json")
    assert (blind.status, blind.body["signed"], blind.body["opened"]) == (Exit.OK, True, False)
    opened = certmesh("backup", "verify", str(file), "--kit-file", str(kit), "--json")
    assert (opened.body["opened"], opened.body["rows"] > 1) == (True, True)
    assert "settings" not in opened.body
    assert sorted(home.iterdir()) == before


def test_a_damaged_backup_is_refused_with_a_status_of_its_own(
    certmesh: Certmesh, lost: tuple[Path, Path]
) -> None:
    """Status 7, and the code says which kind of trouble."""
    file, _ = lost
    octets = bytearray(file.read_bytes())
    octets[9_999] ^= 1
    file.write_bytes(octets)
    said = certmesh("backup", "verify", str(file), "--json")
    assert (said.status, said.body["code"]) == (Exit.REFUSED, "backup_rejected")


def test_restore_makes_this_machine_the_node_with_the_settings_it_had(
    certmesh: Certmesh, lost: tuple[Path, Path], home: Path
) -> None:
    """One command, and the next one is `up`."""
    file, kit = lost
    words = ("backup", "restore", str(file), "--kit-file", str(kit))
    assert certmesh(*words, "--no-input").status == Exit.USAGE
    assert not (home / "membership.json").exists()
    said = certmesh(*words, "--yes", "--listen", "127.0.0.7", "--json")
    assert said.status == Exit.OK, said.out
    assert said.body["host"] == "atlas"
    assert any(line.endswith(" up") for line in said.body["next"])
    text = (home / "certmesh.toml").read_text()
    assert "# kept" in text
    assert '"127.0.0.7:7642"' in text
    assert "10.0.0.5" not in text
    again = certmesh(*words, "--yes", "--json")
    assert (again.status, again.body["code"]) == (Exit.CONFLICT, "mesh_exists")


def test_a_refused_restore_leaves_an_empty_home(
    certmesh: Certmesh, lost: tuple[Path, Path], home: Path
) -> None:
    """The next try, with the right kit, must find nothing in the way."""
    file, kit = lost
    wrong = kit.with_name("wrong")
    wrong.write_text("nothing here")
    wrong.chmod(0o600)
    said = certmesh("backup", "restore", str(file), "--kit-file", str(wrong), "--yes", "--json")
    assert (said.status, said.body["code"]) == (Exit.REFUSED, "bad_passphrase")
    assert list(home.iterdir()) == []
    short = kit.with_name("short")
    short.write_text("short\n")
    words = ("--kit-file", str(kit), "--new-passphrase-file", str(short), "--yes", "--json")
    refused = certmesh("backup", "restore", str(file), *words)
    assert refused.body["code"] == "name_not_allowed"
    assert not (home / "certmesh.toml").exists()
    assert certmesh("backup", "restore", str(file), *words[:2], "--yes").status == Exit.OK


def test_a_kit_that_others_can_read_is_not_read(
    certmesh: Certmesh, lost: tuple[Path, Path]
) -> None:
    """Whoever read it has it; a person should know before it is used."""
    file, kit = lost
    kit.chmod(0o644)
    said = certmesh("backup", "verify", str(file), "--kit-file", str(kit))
    assert said.status == Exit.USAGE
    assert "open to other users" in said.err


def test_the_directories_of_the_lost_machine_do_not_come_along(home: Path) -> None:
    """The new home decides where things are; a hook with strange TOML survives all the same."""
    settings = (
        '[node]\nname = "old"\ndata_dir = "/srv/gone"\nrun_dir = "/run/gone"\n'
        '[[hook]]\nname = "nginx"\ncommand = ["systemctl", "reload", "nginx"]\n'
    )
    options = NodeOptions("", "", 0, 0, ())
    prepared = rebuilt_home(home / "new", settings, "atlas", options)
    assert prepared.paths.data == home / "new"
    assert prepared.settings.node.name == "atlas"
    assert prepared.settings.hook[0].command == ("systemctl", "reload", "nginx")


def test_export_prints_what_others_need_as_pem(
    certmesh: Certmesh, console: FakeConsole, lost: tuple[Path, Path], member_home: Paths
) -> None:
    """Root alone, the bundle with the root last, or the lists."""
    assert member_home.membership.exists()
    root = (lost[0].parent / "ca" / "root.pem").read_bytes()
    issuing = (lost[0].parent / "ca" / "issuing.pem").read_bytes()
    ders = [
        x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in (root, issuing)
    ]
    console.answer("GET", "/v1/ca/trust", TrustAnswer(ders[0], ders[1], b"", 0))
    assert certmesh("ca", "export").out.encode() == root
    assert certmesh("ca", "export", "--bundle").out.encode() == issuing + root
    assert certmesh("ca", "export", "--crl").status == Exit.CONFLICT
    assert certmesh("ca", "export", "--crl", "--bundle").status == Exit.USAGE
    file = lost[0].with_name("root-out.pem")
    assert certmesh("ca", "export", "-o", str(file)).status == Exit.OK
    assert file.read_bytes() == root


def test_defect_37_destroy_asks_also_when_it_speaks_json(certmesh: Certmesh, home: Path) -> None:
    """The reference skips the question with --json: a script with a typo ends a CA."""
    assert certmesh("init", "home", *LOCAL).status == Exit.OK
    for words in (("--json",), ("--mesh", "home", "--json"), ("--yes", "--json")):
        said = certmesh("ca", "destroy", *words)
        assert (said.status, said.body["code"]) == (Exit.USAGE, "usage"), words
    other = certmesh("ca", "destroy", "--mesh", "work", "--yes", "--json")
    assert other.status == Exit.CONFLICT
    assert (home / "membership.json").exists()
    done = certmesh("ca", "destroy", "--mesh", "home", "--yes", "--json")
    assert done.status == Exit.OK, done.out
    assert (Path(done.body["kept"]) / "audit.ndjson").exists()
    assert certmesh("init", "home", *LOCAL).status == Exit.OK


def test_a_refused_destruction_leaves_the_node_running(
    certmesh: Certmesh, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`nothing was changed` must hold for its processes too: a stopped primary is a failover."""
    assert certmesh("init", "home", *LOCAL).status == Exit.OK
    with closing(Ledger.open(home / "ledger.db", node="atlas")) as ledger:
        ledger.begin()
        ledger.local_set(LOCAL_ELECTION, encode_body(Standing(Phase.FOLLOWING, 1, 1, "birch", 1)))
        ledger.commit()
    done: list[str] = []

    def stopped(_session: object) -> bool:
        done.append("stopped")
        return True

    monkeypatch.setattr(destroy, "stop_pool", stopped)
    monkeypatch.setattr(destroy, "start_pool", lambda _session: done.append("started"))
    said = certmesh("ca", "destroy", "--mesh", "home", "--yes", "--json")
    assert said.body["code"] == "not_primary"
    assert done == ["stopped", "started"]
