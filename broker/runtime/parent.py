"""Nothing outlives its supervisor: the kernel kills this process when its parent dies.

SIGKILL of supervisord would otherwise leave orphans, and a second supervisord would start a second
copy of everything. PR_SET_PDEATHSIG must be set after exec (setuid clears it) and cannot see a
parent that died before, hence the look at the parent afterwards.
"""

import ctypes
import os
import select
import signal
import stat
import sys

from broker.runtime.exits import Exit

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Bind this process's life to its parent's; exit now when the parent is already gone."""
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent or supervisor_is_gone():
        sys.exit(Exit.TEMPORARY)


def supervisor_is_gone() -> bool:
    """Return whether the supervisord that started this process closed its end of our input.

    The parent's pid alone does not tell: an orphan's new parent is pid 1, and so is a supervisord
    in a container. Supervisord holds a pipe to each child's standard input while it lives.
    """
    if "SUPERVISOR_ENABLED" not in os.environ:
        return False
    try:
        if not stat.S_ISFIFO(os.fstat(0).st_mode):
            return False
    except OSError:
        return False
    poller = select.poll()
    poller.register(0, 0)
    return any(mask & select.POLLHUP for _, mask in poller.poll(0))
