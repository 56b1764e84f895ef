"""Fixtures for all tests: a home with short paths, and no child process left behind."""

import logging
import os
import pwd
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from broker.runtime.logfile import LogFile
from broker.runtime.logs import setup_logs
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import Settings, parse_settings
from tests.support import eventually


@pytest.fixture
def home() -> Iterator[Path]:
    """A private directory with a short path: sockets in it must stay below 108 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="cm-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def settings() -> Settings:
    """Settings of a quiet node: no listeners on the LAN, no multicast."""
    raw = {
        "node": {"name": "atlas", "hook_user": own_user()},
        "listen": {"enroll": "127.0.0.1:0", "mesh": "127.0.0.1:0"},
        "discovery": {"mdns": False},
    }
    return parse_settings(raw, "test settings")


@pytest.fixture
def paths(home: Path, settings: Settings) -> Paths:
    """The paths of a node in `home`, with its directories made and a settings file."""
    found = node_paths(home / "certmesh.toml", settings)
    for directory in (found.run, found.log, found.data):
        directory.mkdir(mode=0o700, exist_ok=True)
    found.settings.write_text(
        f'[node]\nname = "atlas"\nhook_user = "{own_user()}"\n'
        '[listen]\nenroll = "127.0.0.1:0"\nmesh = "127.0.0.1:0"\n'
        "[discovery]\nmdns = false\n"
    )
    return found


@pytest.fixture(autouse=True)
def _no_child_is_left_behind() -> Iterator[None]:
    before = child_pids()
    yield
    try:
        eventually(lambda: child_pids() <= before, within_s=3)
    except AssertionError:
        leaked = child_pids() - before
        for pid in leaked:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        pytest.fail(f"the test left child processes behind: {sorted(leaked)}")


def own_user() -> str:
    """Return who runs the tests: hooks run as the same user, so that they may write into `home`."""
    return pwd.getpwuid(os.geteuid()).pw_name


def child_pids() -> set[int]:
    """Return the pids of this process's children, zombies included."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update(int(pid) for pid in (task / "children").read_text().split())
        except FileNotFoundError:
            continue  # a thread that has ended meanwhile
    return found


@pytest.fixture
def log_lines(home: Path) -> Iterator[Callable[[], list[str]]]:
    """The names of the events this process logs during the test, in order."""
    root, ours = logging.getLogger(), logging.getLogger("certmesh")
    before = root.handlers[:], root.level, ours.level, logging.raiseExceptions
    target = LogFile(home / "test.log")
    setup_logs(Settings(), "test", stream=target)

    def names() -> list[str]:
        written = (home / "test.log").read_bytes().splitlines()
        return [msgspec.json.decode(line)["event"] for line in written]

    yield names
    root.handlers[:], root.level, ours.level, logging.raiseExceptions = before
    target.close()
