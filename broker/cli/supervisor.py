"""Supervisord of one node: asking it over its socket, starting and stopping it.

Stopping is a SIGTERM to supervisord itself, never `stopAllProcesses`: only then are programs
stopped one after the other, workers before the broker.
"""

import configparser
import contextlib
import http.client
import os
import select
import signal
import subprocess
import sys
import xmlrpc.client  # (our own socket, in a 0700 directory)
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.cli.api import UnixConnection
from broker.cli.nodehome import PRIVATE_UMASK
from broker.clock import boottime_ms
from broker.errors import InternalError
from broker.runtime.paths import Paths
from broker.runtime.restraint import Starts

ANSWER_TIMEOUT_S = 5.0
STOP_TIMEOUT_S = 60.0
"""Longer than any `stopwaitsecs` of the table."""

END_MS = 10_000
"""How long a program may take to end when it is asked to; a hook that runs is cut short."""

ANSWER_BYTES_MAX = 1024 * 1024
MODULE = "supervisor.supervisord"
GIVEN_UP = frozenset({"FATAL", "EXITED", "STOPPED", "UNKNOWN"})


@dataclass(frozen=True, slots=True)
class Program:
    """One line of supervisord's table."""

    name: str
    group: str
    state: str
    pid: int
    status: int
    reason: str
    log: Path

    @property
    def address(self) -> str:
        """The name supervisord wants in calls."""
        return f"{self.group}:{self.name}"


class Supervisor:
    """The supervisord of the node with these paths, running or not."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def programs(self) -> tuple[Program, ...] | None:
        """Return its table; None when it does not answer."""
        table = self._call("supervisor.getAllProcessInfo")
        if table is None:
            return None
        return tuple(
            Program(
                name=str(line["name"]),
                group=str(line["group"]),
                state=str(line["statename"]),
                pid=int(line["pid"]),
                status=int(line["exitstatus"]),
                reason=str(line["spawnerr"]),
                # The event listener's stdout is a protocol; it writes its log itself.
                log=Path(line["stdout_logfile"] or self._paths.log / f"{line['name']}.log"),
            )
            for line in table
        )

    def wake(self) -> bool:
        """Let a supervisord go on that somebody stopped (SIGSTOP); return whether it was."""
        grip = self.grip()
        if grip is None:
            return False
        try:
            is_stopped = grip.is_stopped()
            if is_stopped:
                grip.resume()
            return is_stopped
        finally:
            grip.release()

    def start(self) -> None:
        """Start it; it goes to the background by itself once its sockets are open.

        Raises:
            InternalError: It refused, in its own words.
        """
        Starts(self._paths.home).forget_all()
        started = subprocess.run(  # noqa: S603 (our own interpreter)
            [*self._line(), "-c", str(self._paths.supervisord)],
            cwd=self._paths.home,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            umask=PRIVATE_UMASK,
        )
        if started.returncode != 0:
            said = (started.stderr + started.stdout).decode(errors="replace").splitlines()
            reasons = [line for line in said if line and not line.startswith("For help")]
            raise InternalError(
                f"supervisord did not start: {' '.join(reasons) or 'it did not say why'}",
                hint=f"see {self._paths.supervisord} and {self._paths.log}",
            )

    def waits_ms(self, program: Program) -> int:
        """Return for how long a program that ended again and again still waits."""
        start = Starts(self._paths.home).of(program.name)
        runs = program.state in {"RUNNING", "STARTING"}
        return start.wait_ms(boottime_ms()) if start is not None and runs else 0

    def revive(self) -> None:
        """Start again what has stopped for good: its cause may have been mended meanwhile."""
        for program in self.programs() or ():
            if self.waits_ms(program):
                self.renew(program)
                continue
            Starts(self._paths.home).forgive(program.name)
            if program.state in GIVEN_UP:
                name, wait = program.address, False
                self._call("supervisor.startProcess", name, wait)

    def renew(self, program: Program) -> None:
        """Ask a running program to end and wait a moment for that; supervisord starts it again.

        Stopping and starting it would leave it stopped if this command died in between.
        """
        Starts(self._paths.home).forgive(program.name)
        with contextlib.suppress(OSError):
            ended = os.pidfd_open(program.pid)
            try:
                self._call("supervisor.signalProcess", program.address, "TERM")
                poller = select.poll()
                poller.register(ended, select.POLLIN)
                poller.poll(END_MS)
            finally:
                os.close(ended)

    def take_over(self) -> tuple[str, ...]:
        """Make the running pool what its file says by now; return the programs that changed.

        Others run on: a SIGHUP would restart them all, and stop them all on a typing error.

        Raises:
            InternalError: supervisord refuses the file; everything runs as before.
        """
        answer = self._call("supervisor.reloadConfig")
        if answer is None:
            raise InternalError(
                f"supervisord does not take {self._paths.supervisord}",
                hint=f"see {self._paths.log / 'supervisord.log'}",
            )
        added, changed, removed = answer[0]
        for name in (*changed, *removed):
            self._call("supervisor.stopProcessGroup", name, timeout_s=STOP_TIMEOUT_S)
            self._call("supervisor.removeProcessGroup", name)
        for name in (*changed, *added):
            self._call("supervisor.addProcessGroup", name)
        return tuple(sorted((*added, *changed, *removed)))

    def foreground_line(self) -> list[str]:
        """Return the line that runs it without going to the background."""
        return [*self._line(), "-n", "-c", str(self._paths.supervisord)]

    def _line(self) -> list[str]:
        return [sys.executable, "-m", MODULE]

    def grip(self) -> "Grip | None":
        """Return a hold on the running process, or None when none runs for this node.

        The pid comes from the process itself or its pid file; it counts only if its command line
        is supervisord with this very configuration, because pids are reused.
        """
        for pid in self._pids():
            with contextlib.suppress(OSError):
                grip = Grip(pid, os.pidfd_open(pid))
                if self._is_ours(pid):
                    return grip
                grip.release()
        return None

    def pid(self) -> int | None:
        """Return its pid as it says itself; None when it does not answer."""
        pid = self._call("supervisor.getPID")
        return pid if isinstance(pid, int) else None

    def _pids(self) -> Iterator[int]:
        # The note first: one that was stopped takes calls and never answers them.
        for find in (self._noted_pid, self.pid):
            pid = find()
            if pid is not None and pid > 1:
                yield pid

    def _noted_pid(self) -> int | None:
        table = configparser.RawConfigParser(inline_comment_prefixes=(";", " #"))
        try:
            table.read(self._paths.supervisord, encoding="utf-8")
            noted = table.get("supervisord", "pidfile").replace("%(here)s", str(self._paths.home))
            return int(Path(noted).read_text(encoding="ascii"))
        except (configparser.Error, OSError, ValueError):
            return None

    def _is_ours(self, pid: int) -> bool:
        """Return whether the process is a supervisord that was given our configuration."""
        words = [
            os.fsdecode(word) for word in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        ]
        started_in = Path(f"/proc/{pid}/cwd").readlink()
        wanted = self._paths.supervisord.resolve()
        named = any((started_in / word).resolve() == wanted for word in words if word)
        return named and any("supervisord" in Path(word).name for word in words[:3])

    def _call(self, method: str, *given: str | bool, timeout_s: float = ANSWER_TIMEOUT_S) -> Any:
        """Return the answer to one XML-RPC call; None when nobody answers.

        One connection per call: a kept one breaks when supervisord restarts.
        """
        connection = UnixConnection(self._paths.supervisor_socket, timeout_s)
        try:
            connection.request(
                "POST", "/RPC2", xmlrpc.client.dumps(given, method), {"Content-Type": "text/xml"}
            )
            answer = connection.getresponse().read(ANSWER_BYTES_MAX)
            return xmlrpc.client.loads(answer.decode())[0][0]
        except (OSError, http.client.HTTPException, xmlrpc.client.Error, ValueError):
            return None
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Grip:
    """One process, held by descriptor: a signal can never reach whoever gets its pid next."""

    pid: int
    descriptor: int

    def terminate(self) -> None:
        """Ask it to stop; it is no error when it just did."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, signal.SIGTERM)
        self.resume()  # a stopped process takes no other signal

    def resume(self) -> None:
        """Let it go on, if somebody stopped it."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.descriptor, signal.SIGCONT)

    def is_stopped(self) -> bool:
        """Return whether somebody stopped it by SIGSTOP, or traces it."""
        try:
            after_name = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2]
        except OSError:
            return False
        return after_name.split()[0] in {"T", "t"}

    def release(self) -> None:
        """Let go of it."""
        os.close(self.descriptor)


def environment() -> dict[str, str]:
    """Return the environment of supervisord: this interpreter's directory first on PATH."""
    own = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    return {**os.environ, "PATH": f"{own}{os.pathsep}{path}"}
