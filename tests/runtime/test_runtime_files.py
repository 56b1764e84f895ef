"""Files are the old ones or the new ones, and closed to others."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from broker.runtime.files import private_directory, write_atomic, write_new
from broker.runtime.wordlist import passphrase, words


def test_a_file_is_replaced_as_a_whole(home: Path) -> None:
    """A reader with the old file open keeps reading the old one (row 12)."""
    path = home / "membership.json"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"new and longer")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new and longer"
    assert [entry.name for entry in home.iterdir()] == ["membership.json"]


def test_a_failed_write_leaves_the_old_file_and_no_litter(home: Path) -> None:
    """The rename fails here because the target is a directory; nothing else changes."""
    path = home / "target"
    path.mkdir()

    with pytest.raises(OSError, match="directory"):
        write_atomic(path, b"new")

    assert [entry.name for entry in home.iterdir()] == ["target"]


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_does_not_depend_on_the_umask(home: Path, mode: int) -> None:
    """A key is 0600 under any umask, a public certificate 0644 even under 077."""
    for umask in (0o000, 0o077):
        previous = os.umask(umask)
        try:
            write_atomic(home / "file", b"x", mode)
        finally:
            os.umask(previous)
        assert stat.S_IMODE((home / "file").stat().st_mode) == mode


def test_a_new_file_never_follows_a_planted_link(home: Path) -> None:
    """Whoever can write into the directory must not steer us into another file."""
    victim = home / "victim"
    victim.write_bytes(b"precious")
    (home / "file").symlink_to(victim)

    with pytest.raises(FileExistsError):
        write_new(home / "file", b"x", 0o600)

    write_atomic(home / "file", b"x")
    assert victim.read_bytes() == b"precious"
    assert not (home / "file").is_symlink()


def test_an_open_directory_is_closed_to_others(home: Path) -> None:
    """Sockets in it are the authority to talk to the broker."""
    wide = home / "run"
    wide.mkdir()
    wide.chmod(0o777)

    assert private_directory(wide) == wide
    assert stat.S_IMODE(wide.stat().st_mode) == 0o700
    assert stat.S_IMODE(private_directory(home / "a" / "b").stat().st_mode) == 0o700


def test_a_passphrase_is_six_words_of_the_eff_long_list() -> None:
    """7,776 words: the entropy of the passphrase depends on the length of the list."""
    assert len(words()) == len(set(words())) == 7776
    drawn = passphrase().split(" ")
    assert len(drawn) == 6
    assert set(drawn) <= set(words())
    assert passphrase() != passphrase()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_content_and_name_are_both_durable_in_this_order(home: Path) -> None:
    """Without fsync of the directory the last file is lost when the power goes (row 11)."""
    program = (
        "from pathlib import Path; from broker.runtime.files import write_atomic;"
        f" write_atomic(Path({str(home / 'f')!r}), b'x')"
    )
    trace = home / "trace"
    watched = "trace=fsync,rename,renameat,renameat2"
    subprocess.run(
        ["strace", "-y", "-e", watched, "-o", str(trace), sys.executable, "-c", program],
        check=True,
        timeout=30,
    )
    calls = [line for line in trace.read_text().splitlines() if str(home) in line]
    assert [line.partition("(")[0][:6] for line in calls] == ["fsync", "rename", "fsync"]
    assert ".f." in calls[0]
    assert f"<{home}>" in calls[2]
