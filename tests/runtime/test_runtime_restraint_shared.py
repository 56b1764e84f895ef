"""The notes of starts lie in a directory where every user of a node may write: none is trusted."""

import os
import resource
import signal
from pathlib import Path

import pytest

from broker.runtime.restraint import Start, Starts

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root writes among other users' files")
OTHER_UID = 65_534


@pytest.fixture
def starts(home: Path) -> Starts:
    """Return notes in a directory as `certmesh up` makes it where `[users]` is used."""
    place = home / "run" / "starts"
    place.mkdir(parents=True)
    place.chmod(0o3770)
    return Starts(home)


def _place(starts: Starts) -> Path:
    return starts.home / "run" / "starts"


def _become(uid: int) -> None:
    os.setgroups([os.getgid()])
    os.setresuid(uid, uid, uid)


def _writes_as(uid: int, starts: Starts, start: Start) -> bool:
    """Return whether a process of that user can replace the note of the gateway."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            _become(uid)
            starts.keep("gateway", start)
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@AS_ROOT
def test_what_root_forgave_stays_the_file_of_its_process(starts: Starts) -> None:
    """Or the process could never count again, nor say with which settings it works (row 9)."""
    for directory in (*reversed(_place(starts).parents), _place(starts)):
        if not directory.stat().st_mode & 0o001 and directory != _place(starts):
            directory.chmod(directory.stat().st_mode | 0o011)
    starts.keep("gateway", Start(1, ends=3))
    os.chown(_place(starts) / "gateway.json", OTHER_UID, -1)
    starts.forgive("gateway")
    assert (_place(starts) / "gateway.json").stat().st_uid == OTHER_UID
    assert _writes_as(OTHER_UID, starts, Start(2, ends=1))
    assert starts.of("gateway") == Start(2, ends=1)


def test_no_note_is_written_through_a_link_that_somebody_put_there(
    starts: Starts, tmp_path: Path
) -> None:
    """Root writes here: a link under the name of a half-written note would choose what (L6)."""
    target = tmp_path / "shadow"
    target.write_text("precious")
    starts.keep("gateway", Start(1, ends=3))
    (_place(starts) / f"gateway.{os.getpid()}").symlink_to(target)
    starts.forgive("gateway")
    assert target.read_text() == "precious"
    forgiven = starts.of("gateway")
    assert forgiven is not None
    assert forgiven.ends == 0


def test_nobody_waits_for_a_pipe_or_follows_a_link_in_place_of_a_note(
    starts: Starts, tmp_path: Path
) -> None:
    """The watchdog reads the notes of all; hung by a gateway it would guard nobody (L6)."""
    target = tmp_path / "note"
    target.write_text('{"due_ms":1}')
    os.mkfifo(_place(starts) / "gateway.json")
    (_place(starts) / "console.json").symlink_to(target)
    old = signal.signal(signal.SIGALRM, _raise)
    signal.alarm(10)
    try:
        assert (starts.of("gateway"), starts.of("console")) == (None, None)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def test_what_lies_in_the_way_does_not_keep_a_node_from_starting(starts: Starts) -> None:
    """A directory with the name of a note, and what a process left that was killed meanwhile."""
    (_place(starts) / "gateway.json").mkdir()
    (_place(starts) / "console.4711").write_text("")
    starts.keep("broker", Start(1, ends=3))
    starts.forget_all()
    assert [path.name for path in _place(starts).iterdir()] == ["gateway.json"]


def test_a_full_disk_keeps_nobody_from_being_started_again(starts: Starts) -> None:
    """`certmesh up` forgives on the way to reviving programs (row 14)."""
    starts.keep("gateway", Start(1, ends=3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        starts.forgive("gateway")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in _place(starts).iterdir()) == ["gateway.json"]


def _raise(_signal: int, _frame: object) -> None:
    raise AssertionError("it waits for a writer")
