"""Directories that several users of one node share, and the rule that nothing else is open."""

import stat
from pathlib import Path

import pytest

from broker.runtime.files import (
    SHARED_DIRECTORY_MODE,
    is_shared,
    private_directory,
    write_atomic,
    write_kept,
    write_new,
)


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Return a directory as `certmesh up` makes it for several users."""
    place = tmp_path / "shared"
    place.mkdir()
    place.chmod(SHARED_DIRECTORY_MODE)
    return place


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_what_is_made_in_a_shared_directory_may_be_read_by_its_group(shared: Path) -> None:
    """The gateway reads the key that renewal installs; nobody else does (L6)."""
    write_new(shared / "key.pem", b"key")
    write_atomic(shared / "other", b"x")
    inner = private_directory(shared / "v0001")
    write_new(inner / "key.pem", b"key")
    assert [_mode(shared / name) for name in ("key.pem", "other", "v0001/key.pem")] == [0o640] * 3
    assert _mode(inner) == SHARED_DIRECTORY_MODE


def test_a_shared_directory_stays_shared(shared: Path) -> None:
    """Every installation looks at its directories again; closing them would stop the gateway."""
    private_directory(shared)
    assert _mode(shared) == SHARED_DIRECTORY_MODE


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o2755, 0o1777, 0o2750])
def test_no_other_directory_makes_a_secret_readable(tmp_path: Path, mode: int) -> None:
    """A set-group-id directory on a file server is nobody's wish to share keys (P3)."""
    place = tmp_path / "place"
    place.mkdir()
    place.chmod(mode)
    write_new(place / "key.pem", b"key")
    inner = private_directory(place / "v0001")
    assert not is_shared(place)
    assert _mode(place / "key.pem") == 0o600
    assert _mode(inner) == 0o700
    assert _mode(private_directory(place)) == 0o700


def test_a_file_that_its_group_may_read_stays_one_where_that_is_asked_for(tmp_path: Path) -> None:
    """Settings and membership; whatever else is written again is closed again (P3)."""
    for write, wanted in ((write_kept, 0o640), (write_atomic, 0o600)):
        path = tmp_path / write.__name__
        path.write_bytes(b"before")
        path.chmod(0o646)
        write(path, b"after")
        assert (_mode(path), path.read_bytes()) == (wanted, b"after")
    write_kept(tmp_path / "new", b"x")
    assert _mode(tmp_path / "new") == 0o600
