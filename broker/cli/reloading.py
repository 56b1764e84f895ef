"""Which programs start again when the settings change, in which order, and when they are back.

Loops first, one after the other; then the doors, one after the other, so that of several gateways
all but one are open; the broker last, because it keeps what the others ask for. The watchdog goes
before it: whoever judges the broker must know its new deadline.
"""

import select
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from broker.cli.api import Api
from broker.cli.program import tail
from broker.cli.readiness import is_open
from broker.cli.supervisor import Program, Supervisor
from broker.clock import boottime_ms
from broker.errors import InternalError, MeshError, SettingsError
from broker.runtime.paths import Paths
from broker.runtime.restraint import Starts, digests
from broker.runtime.settings import Settings
from broker.units import Millis
from broker.wire.ids import Service
from broker.wire.node import WorkersView

BROKER = "broker"
EVERYONE = frozenset({"node", "log"})
NOT_THE_BROKER = frozenset({"hook", "pool", "sync"})
"""Hooks are read again at each use, the pool is supervisord's."""

SECTIONS = {
    Service.APPROVAL: frozenset({"approval"}),
    Service.RENEWAL: frozenset({"renewal"}),
    Service.REMOTE_RENEWAL: frozenset({"renewal"}),
    Service.ROSTER_SYNC: frozenset({"sync"}),
    Service.HEARTBEAT: frozenset({"heartbeat"}),
    Service.NOTIFY: frozenset({"notify"}),
    Service.FAILOVER: frozenset({"failover", "discovery", "broker"}),
    Service.GATEWAY: frozenset({"listen"}),
    Service.CONSOLE: frozenset({"listen", "enrollment", "hook"}),
    Service.WATCHDOG: frozenset({"broker"}),
}
"""What each process reads of the settings, beside what everyone does; the broker reads the rest."""

_LATE = (Service.GATEWAY.value, Service.CONSOLE.value, Service.WATCHDOG.value, BROKER)
LOOK_MS = 100


@dataclass(frozen=True, slots=True)
class Stale:
    """A program that works with other settings than the file has, and which sections differ."""

    program: Program
    sections: tuple[str, ...]


def stale_programs(supervisor: Supervisor, paths: Paths, settings: Settings) -> tuple[Stale, ...]:
    """Return what has to start again, in the order to do it.

    A program that does not say what it works with counts as one that works with something else;
    one that does not run starts with the right settings by itself.
    """
    wanted, starts = digests(settings), Starts(paths.home)
    found = []
    for program in supervisor.programs() or ():
        start = starts.of(program.name)
        known = start.settings if start is not None else {}
        differing = {name for name, digest in wanted.items() if known.get(name) != digest}
        matters = differing & sections_of(program.group)
        if matters and program.state in {"RUNNING", "STARTING"}:
            found.append(Stale(program, tuple(sorted(matters)) if known else ()))
    return tuple(sorted(found, key=lambda one: (_turn(one.program), one.program.name)))


def sections_of(group: str) -> frozenset[str]:
    """Return the sections of the settings that a program reads."""
    if group == BROKER:
        return frozenset(Settings.__struct_fields__) - NOT_THE_BROKER
    try:
        return EVERYONE | SECTIONS[Service(group)]
    except ValueError:
        return frozenset()  # a program that a person added to the table


def _turn(program: Program) -> int:
    return _LATE.index(program.group) + 1 if program.group in _LATE else 0


def check_doors(settings: Settings) -> None:
    """Raise if a door could not be opened: better now than when the open one is closed.

    Raises:
        SettingsError: Nobody listens at an address of `[listen]`, and nobody could.
    """
    listen = settings.listen
    for door in filter(None, (listen.enroll, listen.mesh, listen.dashboard)):
        host, _, port = door.rpartition(":")
        if not is_open(door):
            try:
                _try_to_bind(host.strip("[]"), int(port))
            except (OSError, ValueError, OverflowError) as error:
                reason = getattr(error, "strerror", None) or error
                raise SettingsError(
                    f"cannot listen on {door}: {reason}", hint="mend [listen]; nothing was changed"
                ) from None


def _try_to_bind(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))


class Renewal:
    """Starts programs again, one after the other, each waited for."""

    def __init__(self, supervisor: Supervisor, api: Api, deadline_ms: Millis) -> None:
        self._supervisor = supervisor
        self._api = api
        self._deadline_ms = deadline_ms

    def renew(self, program: Program) -> None:
        """Start a program again and wait until the new process has greeted the broker.

        Raises:
            InternalError: It did not come back in time; programs after it were left alone.
        """
        self._supervisor.renew(program)
        nothing = select.poll()
        while not self._is_back(program):
            if boottime_ms() > self._deadline_ms:
                raise InternalError(
                    f"{program.name} did not come back with the new settings\n{tail(program.log)}",
                    hint=f"mend certmesh.toml and run this again; see {program.log}",
                )
            nothing.poll(LOOK_MS)

    def _is_back(self, before: Program) -> bool:
        rows = self._supervisor.programs() or ()
        now = next((row for row in rows if row.name == before.name), None)
        if now is None or now.pid in (0, before.pid) or now.state != "RUNNING":
            return False
        try:
            view = self._api.get("/v1/workers", WorkersView)
        except MeshError:
            return False  # the console or the broker is what starts
        return now.pid in _greeted(view)


def _greeted(view: WorkersView) -> Iterable[int]:
    return (view.broker_pid, *(one.pid for one in view.workers if one.liveness == "ready"))
