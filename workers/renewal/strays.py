"""Processes of a hook that left its group, by `setsid` or as a daemon does, and how they end.

While a hook runs this process is the subreaper of its descendants (prctl(2)): whoever loses its
parent becomes a child of ours, not of init. So nothing that a hook started can hide from its time
limit. A daemon that a hook left behind on purpose, by ending in time, lives on; it is a child of
ours until this worker ends, and is reaped when it has ended.

Not reached: what another process started on the hook's behalf (systemd, cron, at), and on a node
that does not run as root a program that became another user.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from broker.clock import boottime_ms
from broker.units import Millis

_PR_SET_CHILD_SUBREAPER = 36
END_MS = 2000
"""How long killed processes may take to disappear; one in a hung disk call takes longer."""
LOOK_MS = 10


class Strays:
    """Children that came to this process from its hooks."""

    def __init__(self) -> None:
        self._left: set[int] = set()
        self._before: frozenset[int] = frozenset()

    @contextlib.contextmanager
    def adopted(self) -> Iterator[None]:
        """Take in whoever loses its parent meanwhile."""
        self._left = {pid for pid in self._left if not _is_reaped(pid)}
        self._before = frozenset(_children())
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        try:
            yield
        finally:
            prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
            self._left |= {pid for pid in self._found() if not _is_reaped(pid)}

    def end(self, hook: int) -> Iterator[int]:
        """Kill and reap all that came, except the ended `hook`; yield waits in ms until all went.

        Complete when it ends before its limit: a process is seen from the moment its parent ended,
        and each is killed until none is left.
        """
        deadline_ms = Millis(boottime_ms() + END_MS)
        while boottime_ms() < deadline_ms:
            found = {pid for pid in self._found() - {hook} if not _is_reaped(pid)}
            if not found:
                return
            for pid in found:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            yield LOOK_MS

    def _found(self) -> set[int]:
        return set(_children()) - self._before


def _children() -> Iterator[int]:
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            yield from map(int, (task / "children").read_text().split())


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
