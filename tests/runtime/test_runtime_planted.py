"""What another user of this machine puts in the way: nothing of it is followed or used."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import SettingsError
from broker.runtime.files import private_directory, write_atomic
from broker.runtime.logfile import LogFile
from broker.runtime.planted import refuse_planted

NOBODY = 65_534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as somebody else")


@pytest.fixture
def square() -> Iterator[Path]:
    """A directory that everybody may write to, as /tmp is."""
    place = Path(tempfile.mkdtemp(prefix="cm-square-", dir="/tmp"))
    place.chmod(0o1777)
    yield place
    shutil.rmtree(place)


def as_nobody(code: str) -> "subprocess.CompletedProcess[str]":
    """Run Python as somebody else; the interpreter needs no file of ours."""
    program = (
        "import os; from pathlib import Path\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n" + code
    )
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd="/"
    )


@needs_root
def test_a_directory_that_somebody_made_for_us_is_not_used(square: Path) -> None:
    """Its owner could put sockets and keys of its own into it, whatever the mode (L5)."""
    place = square / "run"
    assert as_nobody(f"Path({str(place)!r}).mkdir()").returncode == 0
    with pytest.raises(SettingsError, match=f"{place} is a directory of uid {NOBODY}"):
        private_directory(place)
    with pytest.raises(SettingsError, match=str(place)):
        private_directory(place / "deeper")
    assert place.stat().st_mode & 0o777 != 0o700
    assert list(place.iterdir()) == []


@needs_root
def test_a_link_that_somebody_made_for_us_is_not_followed(square: Path, home: Path) -> None:
    """It leads where that user wants, now or after the next look (L5)."""
    victim = home / "victim"
    victim.mkdir(mode=0o755)
    assert as_nobody(f"Path({str(square)!r}, 'run').symlink_to({str(victim)!r})").returncode == 0
    for place in (square / "run", square / "run" / "deeper"):
        with pytest.raises(SettingsError, match="is a link of uid 65534"):
            private_directory(place)
    assert victim.stat().st_mode & 0o777 == 0o755
    assert list(victim.iterdir()) == []


def test_our_own_directories_and_links_there_are_ours(square: Path, home: Path) -> None:
    """A short run directory below /tmp is what the settings recommend."""
    (square / "link").symlink_to(home)
    private_directory(square / "run")
    refuse_planted(square / "link" / "deeper")
    refuse_planted(square / "not" / "there")


@needs_root
def test_a_whole_node_refuses_to_live_in_what_was_planted(square: Path, home: Path) -> None:
    """One line says which part, whose it is and what to do; nothing is left there (L5)."""
    as_nobody(f"Path({str(square)!r}, 'run').mkdir()")
    command = [sys.executable, "-m", "broker.cli", "--home", str(home), "--no-input"]
    options = ["init", "x", "--setting", f'node.run_dir="{square}/run"']
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 78
    assert f"{square}/run is a directory of uid {NOBODY}" in done.stderr
    assert list((square / "run").iterdir()) == []


@needs_root
def test_nobody_reads_passes_or_connects_anywhere_in_a_node(home: Path) -> None:
    """The directory is closed, so it does not matter what the files in it are (L5)."""
    private_directory(home)
    secret = home / "secret"
    write_atomic(secret, b"key")
    secret.chmod(0o644)
    tried = as_nobody(f"print(Path({str(secret)!r}).read_text())")
    assert tried.returncode != 0
    assert "PermissionError" in tried.stderr


def test_a_log_is_never_written_through_a_link(home: Path) -> None:
    """Whoever may write to a log directory must not choose what else is appended to (L6)."""
    victim = home / "victim"
    victim.write_text("mine")
    (home / "watchdog.log").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic link"):
        LogFile(home / "watchdog.log")
    assert victim.read_text() == "mine"
