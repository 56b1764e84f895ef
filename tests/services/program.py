"""The servers that the tests drive: where they are, and how one runs."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import eventually

ROOT = Path(__file__).parents[2]
FETCHED = ROOT / ".services"
"""Filled by `make services`."""

PLACES = (FETCHED / "usr/sbin", FETCHED / "usr/bin", Path("/usr/sbin"), Path("/sbin"))
STOP_S = 10


def find(name: str) -> str:
    """Return the path of a server's program; skip the test, by its name, where there is none."""
    places = [*map(str, PLACES), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
    found = shutil.which(name, path=os.pathsep.join((*places, os.environ.get("PATH", ""))))
    if found is None:
        pytest.skip(f"{name} is not on this machine (make services fetches what it can)")
    return found


def environment() -> dict[str, str]:
    """Return an environment in which fetched programs find their libraries."""
    libraries = [str(place) for place in sorted((FETCHED / "usr/lib").glob("*-linux-gnu"))]
    return {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(libraries)}


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, user: str | None = None) -> Iterator[int]:
    """Run a server in the foreground and yield its pid; its whole group is gone afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment(),
            start_new_session=True,
            user=user,
            group=user,
            extra_groups=[] if user else None,
        )
    try:
        yield process.pid
        assert process.poll() is None, log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(STOP_S)


def listens(port: int, log: Path) -> None:
    """Wait until somebody listens on a port of this machine."""

    def answers() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        eventually(answers, within_s=20)
    except AssertionError:
        pytest.fail(f"nothing listens on {port}: {log.read_text()}")
