"""Runs one hook: an argv list, never a shell, with a time limit that nothing escapes.

Invariants: the hook is the leader of its own session and process group, and on a timeout the whole
group is killed, and whoever left it (see `strays`); it dies with this worker (PR_SET_PDEATHSIG); it
sees no environment, no descriptor and no files of ours but what is made here, makes private files
only, and leaves no core dump, which could hold a key; its output is read to the end but only the
last part is kept, so that it can neither block on a full pipe nor fill our memory; while it runs,
the worker goes on beating. A stop of the worker leaves the hook a moment to finish and ends it
then: whoever stops the node does not wait for a service that restarts slowly.
"""

import contextlib
import ctypes
import os
import pwd
import resource
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from broker.clock import boottime_ms
from broker.units import Millis
from workers.renewal.logic import OUTPUT_BYTES_KEPT, end_of
from workers.renewal.strays import Strays

READ_BYTES = 65_536
READS_AT_END = 4
"""A child that lives on may hold the pipe open: what a full pipe holds is read, no more."""

GRACE_MS = 1000
"""Between asking the group to end and killing it."""

STOP_MS = 4000
"""How long a hook may go on once a stop was asked; with `GRACE_MS` below `stopwaitsecs`."""

NOT_STARTED = 127
"""As shells report a command that could not be started."""

UMASK = 0o077
USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


class Pause(Protocol):
    """How to wait without going silent."""

    def wait(self, wait_ms: int, *descriptors: int) -> None:
        """Return when a descriptor is readable, or after `wait_ms` at the latest."""
        ...

    def announce(self, within_ms: int) -> None:
        """Say that the next `within_ms` may pass in silence."""
        ...

    def stopping(self) -> bool:
        """Return whether the process was asked to stop."""
        ...


@dataclass(frozen=True, slots=True)
class HookOrder:
    """One program to run.

    Attributes:
        name: What people call it.
        argv: Program and arguments.
        timeout_ms: When it and all its descendants are killed.
        user: Who runs it; empty means this process's own user.
        retries: How often to try again when it failed.
        confined: It can gain no rights by setuid programs (PR_SET_NO_NEW_PRIVS), `sudo` included.
        event: What it is told when it is only tried.
    """

    name: str
    argv: tuple[str, ...]
    timeout_ms: int
    user: str = ""
    retries: int = 0
    confined: bool = False
    event: str = "issued"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended; `cut_short` when a stop of this process ended it."""

    exit: int
    took_ms: int
    timed_out: bool
    output: str
    cut_short: bool = False


class PlainPause:
    """Waits without a broker to beat for."""

    def wait(self, wait_ms: int, *descriptors: int) -> None:
        """Return when a descriptor is readable, or after `wait_ms` at the latest."""
        poller = select.poll()
        for descriptor in descriptors:
            poller.register(descriptor, select.POLLIN)
        poller.poll(max(0, wait_ms))

    def announce(self, within_ms: int) -> None:
        """Nobody is listening."""

    def stopping(self) -> bool:
        """Nobody asks."""
        return False


def run_program(
    order: HookOrder,
    environment: Mapping[str, str],
    pause: Pause,
    strays: Strays | None = None,
) -> Ended:
    """Run one program to its end or its time limit and return how it ended."""
    strays = strays or Strays()
    began_ms = boottime_ms()
    with strays.adopted():
        try:
            child = _start(order, environment)
        except (OSError, ValueError, LookupError, subprocess.SubprocessError) as error:
            return Ended(NOT_STARTED, 0, timed_out=False, output=_start_failure(order, error))
        with _reaped(child):
            tail = _Tail(child)
            deadline_ms = Millis(began_ms + order.timeout_ms)
            overran = not _await_exit(child, tail, deadline_ms, pause, in_stop_ms=STOP_MS)
            cut_short = overran and boottime_ms() < deadline_ms
            if overran:
                _end_all(child, tail, pause, strays)
            for _ in range(READS_AT_END):
                tail.read()
            status = child.wait()
    timed_out = overran and not cut_short
    took_ms = boottime_ms() - began_ms
    return Ended(status, took_ms, timed_out, end_of(bytes(tail.kept)), cut_short)


def full_environment(order: HookOrder, environment: Mapping[str, str]) -> dict[str, str]:
    """Return every variable that the program of `order` sees.

    Raises:
        LookupError: No such user.
        PermissionError: Only root may become somebody else.
    """
    entry = _other_user(order.user)
    if entry is None:
        return {**_own_environment(), **environment}
    who = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    return {**_kept(COMMON_VARIABLES), **who, **environment}


def _start(order: HookOrder, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603 (argv from the operator's own settings, no shell)
        order.argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        close_fds=True,
        cwd="/",
        umask=UMASK,
        env=full_environment(order, environment),
        preexec_fn=_last_steps(confined=order.confined),  # noqa: PLW1509 (one thread runs here)
        **_identity_of(order.user),
    )


def _start_failure(order: HookOrder, error: Exception) -> str:
    # A KeyError shows its text in quotes; what matters is its argument.
    reason = error.args[0] if isinstance(error, LookupError) and error.args else error
    who = f" as user {order.user}" if order.user else ""
    return f"cannot start {list(order.argv)}{who}: {reason}"


def _identity_of(user: str) -> dict[str, Any]:
    """Return what Popen needs to run as `user`; nothing for our own user."""
    entry = _other_user(user)
    if entry is None:
        return {}
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}


def _other_user(user: str) -> pwd.struct_passwd | None:
    """Return the entry of a user, None when that is who this process runs as.

    Raises:
        LookupError: No such user.
        PermissionError: Only root may become somebody else.
    """
    if not user:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise LookupError(f"there is no user {user!r} on this machine") from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise PermissionError(f"only root may run a hook as {user}")
    return entry


COMMON_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ")
OWN_VARIABLES = ("HOME", "USER", "LOGNAME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
"""Of our own user only; the last two let `systemctl --user` find its bus."""


def _own_environment() -> dict[str, str]:
    return _kept((*COMMON_VARIABLES, *OWN_VARIABLES))


def _kept(names: tuple[str, ...]) -> dict[str, str]:
    kept = {name: os.environ[name] for name in names if name in os.environ}
    return {"PATH": USUAL_PATH, **kept}


def _last_steps(*, confined: bool) -> Callable[[], None]:
    """Return what the child does between the change of its user and its program."""
    libc = ctypes.CDLL(None)  # loaded before the fork: little is safe after it
    parent = os.getpid()

    def steps() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(NOT_STARTED)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if confined and libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            os._exit(NOT_STARTED)

    return steps


@contextlib.contextmanager
def _reaped(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Leave no process and no descriptor behind, whatever happens while waiting."""
    try:
        yield
    finally:
        if child.returncode is None:
            _signal_group(child, signal.SIGKILL)
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


class _Tail:
    """The last part of a child's output."""

    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        assert child.stdout is not None
        self._descriptor: int | None = child.stdout.fileno()
        os.set_blocking(self._descriptor, False)
        self.kept = bytearray()

    def descriptors(self) -> tuple[int, ...]:
        """Return what to wait for; nothing after the end of the output."""
        return () if self._descriptor is None else (self._descriptor,)

    def read(self) -> None:
        """Take what there is, at most `READ_BYTES`."""
        if self._descriptor is None:
            return
        try:
            chunk = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if not chunk:
            self._descriptor = None
        self.kept += chunk
        del self.kept[:-OUTPUT_BYTES_KEPT]


def _await_exit(
    child: "subprocess.Popen[bytes]",
    tail: _Tail,
    deadline_ms: Millis,
    pause: Pause,
    in_stop_ms: int | None = None,
) -> bool:
    """Return whether the child ended before the deadline; it is not reaped yet.

    With `in_stop_ms` the deadline comes that soon after a stop was asked.
    """
    watch = os.pidfd_open(child.pid)
    try:
        while not _has_ended(child):
            if in_stop_ms is not None and pause.stopping():
                deadline_ms = Millis(min(deadline_ms, boottime_ms() + in_stop_ms))
                in_stop_ms = None
            left_ms = deadline_ms - boottime_ms()
            if left_ms <= 0:
                return False
            pause.wait(left_ms, watch, *tail.descriptors())
            tail.read()
        return True
    finally:
        os.close(watch)


def _has_ended(child: "subprocess.Popen[bytes]") -> bool:
    # WNOWAIT keeps the zombie, and with it the group's number, until the group is dealt with.
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, child.pid, flags) is not None


def _end_all(child: "subprocess.Popen[bytes]", tail: _Tail, pause: Pause, strays: Strays) -> None:
    """Ask the group to end, then kill it and whoever left it."""
    _signal_group(child, signal.SIGTERM)
    _await_exit(child, tail, Millis(boottime_ms() + GRACE_MS), pause)
    _signal_group(child, signal.SIGKILL)
    _await_exit(child, tail, Millis(boottime_ms() + GRACE_MS), pause)
    for wait_ms in strays.end(child.pid):
        pause.wait(wait_ms)


def _signal_group(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
