"""Nothing outlives its supervisor."""

import os
import signal
import subprocess
import sys

from broker.runtime.exits import Exit
from tests.support import eventually

CHILD = "from broker.runtime.parent import die_with_parent; die_with_parent()\n"
WAITS = CHILD + "print('bound', flush=True); import signal; signal.pause()"
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {WAITS!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 (procfs)
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_process_dies_when_its_supervisor_is_killed() -> None:
    """SIGKILL of supervisord would leave orphans, and a restart a second copy of everything.

    (row 7)
    """
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    orphan = int(parent.stdout.readline())
    assert _is_running(orphan)

    parent.send_signal(signal.SIGKILL)
    parent.wait(5)
    parent.stdout.close()

    eventually(lambda: not _is_running(orphan), within_s=5)


def test_a_process_whose_supervisor_is_gone_already_does_not_start() -> None:
    """The kernel cannot report a death that came before prctl; the closed input pipe can."""
    child = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.readline;" + WAITS],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "SUPERVISOR_ENABLED": "1"},
    )
    assert child.stdin is not None
    child.stdin.close()

    assert child.wait(5) == Exit.TEMPORARY


def test_a_process_under_a_living_supervisor_starts() -> None:
    """The same pipe, still held."""
    child = subprocess.Popen(
        [sys.executable, "-c", WAITS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "SUPERVISOR_ENABLED": "1"},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"bound\n"
    child.kill()
    child.communicate()
