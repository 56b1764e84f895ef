"""Runs one hook: an argv list, never a shell, with a time limit that nothing escapes.

Invariants: the hook is the leader of its own session and process group, and on a timeout the whole
group is killed; it dies with this worker (PR_SET_PDEATHSIG); it sees no environment but the one
made here; its output is read to the end but only the last part is kept, so that it can neither
block on a full pipe nor fill our memory; while it runs, the worker goes on beating.
"""

import contextlib
import ctypes
import os
import pwd
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from broker.clock import boottime_ms
from broker.units import Millis
from workers.renewal.logic import OUTPUT_BYTES_KEPT, end_of

READ_BYTES = 65_536
READS_AT_END = 4
"""A child that lives on may hold the pipe open: what a full pipe holds is read, no more."""

GRACE_MS = 1000
"""Between asking the group to end and killing it."""

NOT_STARTED = 127
"""As shells report a command that could not be started."""

_PR_SET_PDEATHSIG = 1


class Pause(Protocol):
    """How to wait without going silent."""

    def wait(self, wait_ms: int, *descriptors: int) -> None:
        """Return when a descriptor is readable, or after `wait_ms` at the latest."""
        ...

    def announce(self, within_ms: int) -> None:
        """Say that the next `within_ms` may pass in silence."""
        ...


@dataclass(frozen=True, slots=True)
class HookOrder:
    """One program to run."""

    name: str
    argv: tuple[str, ...]
    timeout_ms: int
    user: str = ""
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    exit: int
    took_ms: int
    timed_out: bool
    output: str


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


def run_program(order: HookOrder, environment: Mapping[str, str], pause: Pause) -> Ended:
    """Run one program to its end or its time limit and return how it ended."""
    began_ms = boottime_ms()
    try:
        child = _start(order, environment)
    except (OSError, ValueError, LookupError, subprocess.SubprocessError) as error:
        return Ended(NOT_STARTED, 0, timed_out=False, output=f"cannot start {order.argv}: {error}")
    with _reaped(child):
        tail = _Tail(child)
        deadline_ms = Millis(began_ms + order.timeout_ms)
        timed_out = not _await_exit(child, tail, deadline_ms, pause)
        if timed_out:
            _end_group(child, tail, pause)
        for _ in range(READS_AT_END):
            tail.read()
        status = child.wait()
    return Ended(status, boottime_ms() - began_ms, timed_out, end_of(bytes(tail.kept)))


def _start(order: HookOrder, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    identity, home = _identity_of(order.user)
    return subprocess.Popen(  # noqa: S603 (argv from the operator's own settings, no shell)
        order.argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd="/",
        env={**_base_environment(), **home, **environment},
        preexec_fn=_bound_to_this_process(),  # noqa: PLW1509 (one thread runs Python here)
        **identity,
    )


def _identity_of(user: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what Popen and the environment need to run as `user`; nothing for our own user.

    Raises:
        LookupError: No such user.
        PermissionError: Only root may become somebody else.
    """
    if not user:
        return {}, {}
    entry = pwd.getpwnam(user)
    if entry.pw_uid == os.geteuid():
        return {}, {}
    if os.geteuid() != 0:
        raise PermissionError(f"only root may run a hook as {user}")
    groups = os.getgrouplist(user, entry.pw_gid)
    identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": groups}
    return identity, {"HOME": entry.pw_dir, "USER": user, "LOGNAME": user}


def _base_environment() -> dict[str, str]:
    # The last two let `systemctl --user` find its bus.
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME")
    session = ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
    return {name: os.environ[name] for name in (*kept, *session) if name in os.environ}


def _bound_to_this_process() -> Callable[[], None]:
    libc = ctypes.CDLL(None)  # loaded before the fork: little is safe after it
    parent = os.getpid()

    def bind() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(NOT_STARTED)

    return bind


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
    child: "subprocess.Popen[bytes]", tail: _Tail, deadline_ms: Millis, pause: Pause
) -> bool:
    """Return whether the child ended before the deadline; it is not reaped yet."""
    watch = os.pidfd_open(child.pid)
    try:
        while not _has_ended(child):
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


def _end_group(child: "subprocess.Popen[bytes]", tail: _Tail, pause: Pause) -> None:
    _signal_group(child, signal.SIGTERM)
    _await_exit(child, tail, Millis(boottime_ms() + GRACE_MS), pause)
    _signal_group(child, signal.SIGKILL)


def _signal_group(child: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)
