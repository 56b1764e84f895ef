"""Two restores into one home at once: one makes the node, the other leaves it alone."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.runtime.exits import Exit
from broker.shell.lock import only_broker
from tests.shell.backup_desk import backed_up
from tests.shell.office import Office

ROUNDS = 2


@pytest.fixture
def lost(home: Path) -> Iterator[tuple[Path, Path]]:
    """Return a backup of a mesh whose machine is gone, and its kit."""
    place = home.with_name(f"{home.name}-lost")
    place.mkdir(mode=0o700)
    office = Office.create(place)
    office.paths.settings.write_text(
        '[node]\nname = "atlas"\n[listen]\nenroll = "127.0.0.1:35092"\nmesh = "127.0.0.1:35093"\n'
        "[ca]\nkdf_memory = 8388608\nkdf_passes = 1\n"
    )
    file, kit = backed_up(office, str(place / "one.cmbackup")), place / "kit.txt"
    kit.write_text(f"secret\n  {office.creation.recovery.replace('-', ' ')}\n")
    kit.chmod(0o600)
    office.ledger.close()
    yield file, kit
    shutil.rmtree(place)


def restoring(home: Path, lost: tuple[Path, Path]) -> "subprocess.Popen[str]":
    """Start a restore into `home`."""
    command = [sys.executable, "-m", "broker.cli", "--home", str(home), "--yes", "--no-input"]
    words = ["backup", "restore", str(lost[0]), "--kit-file", str(lost[1]), "--json"]
    return subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_of_two_restores_at_once_one_makes_a_whole_node(
    home: Path, lost: tuple[Path, Path]
) -> None:
    """The loser says why and takes nothing back that is the winner's (row 52) (P16)."""
    for number in range(ROUNDS):
        place = home / str(number)
        both = [restoring(place, lost) for _ in range(2)]
        said = [process.communicate(timeout=120)[0] for process in both]
        statuses = sorted(process.returncode for process in both)
        assert statuses[0] == Exit.OK, said
        assert statuses[1] in {Exit.CONFLICT, Exit.FAILED, Exit.TEMPORARY}, said
        assert any('"code"' in words and '"hint"' in words for words in said), said
        made = {path.name for path in place.iterdir()}
        assert {"certmesh.toml", "membership.json", "ledger.db", "supervisord.conf"} <= made, said
        assert not [name for name in made if name.startswith("restoring-")]


def test_a_restore_that_finds_another_at_work_takes_nothing_back(
    home: Path, lost: tuple[Path, Path]
) -> None:
    """The settings that it made may be what the other one is restoring with (row 52)."""
    with only_broker(home / "broker.lock"):
        refused = restoring(home, lost)
        words, _ = refused.communicate(timeout=120)
        assert "another broker" in words
        assert refused.returncode == Exit.CONFLICT
        assert (home / "certmesh.toml").exists()
    done = restoring(home, lost)
    assert done.communicate(timeout=120)[0]
    assert done.returncode == Exit.OK
