"""When a node is up: every program runs, broker and console answer, the doors are open."""

import socket
from dataclasses import dataclass
from pathlib import Path

from broker.cli.api import Api
from broker.cli.program import tail
from broker.cli.supervisor import Program, Supervisor
from broker.errors import MeshError, UnavailableError
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.ids import Service
from broker.wire.node import NodeView, WorkersView

DIAL_TIMEOUT_S = 1.0
SETTINGS_STATUS = 78
ENDED = frozenset({"FATAL", "UNKNOWN"})
"""STOPPED is not among them: for its first milliseconds supervisord says it of everything. EXITED
neither: it starts those again at once."""
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104 (read, not bound)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What was found in one look: `missing` is empty when the node is ready."""

    missing: str
    programs: int = 0
    locked: bool = False
    culprit: Path | None = None


def look(supervisor: Supervisor, api: Api, settings: Settings) -> Readiness:
    """Return what the node still lacks.

    Raises:
        UnavailableError: A program has stopped for good; waiting would not help.
    """
    programs = supervisor.programs()
    if programs is None:
        return Readiness("supervisord")
    for program in programs:
        if program.state in ENDED:
            raise UnavailableError(
                f"{program.name} has stopped ({_ending(program)})\n{tail(program.log)}",
                hint=f"see {program.log}",
            )
        if waits_ms := supervisor.waits_ms(program):
            raise UnavailableError(
                f"{program.name} ended again and again, the next start is in "
                f"{waits_ms / 1000:.0f} s\n{tail(program.log)}",
                hint=f"see {program.log}",
            )
    starting = [program for program in programs if program.state != "RUNNING"]
    if starting:
        first = starting[0]
        return Readiness(f"{first.name} ({first.state})", len(programs), culprit=first.log)
    return _look_inside(api, settings, programs)


def _look_inside(api: Api, settings: Settings, programs: tuple[Program, ...]) -> Readiness:
    try:
        node = api.get("/v1/node", NodeView)
        workers = api.get("/v1/workers", WorkersView)
    except MeshError as error:
        return Readiness(f"broker and console ({error.code})", len(programs))
    locked = node.ca == "locked"
    # `nas/remote-renewal-0` belongs to another machine, and this pool does not wait for it.
    own = (line for line in workers.workers if "/" not in line.instance)
    absent = [line.instance for line in own if line.liveness in ("absent", "dead")]
    if absent:
        log = next((program.log for program in programs if program.name == absent[0]), None)
        return Readiness(f"{absent[0]} to greet the broker", len(programs), locked, log)
    if node.mesh is None or (locked and node.role in ("primary", "standby")):
        return Readiness("", len(programs), locked)
    gateway = next((line for line in programs if line.name.startswith(Service.GATEWAY)), None)
    shut = [name for name in (settings.listen.mesh,) if name and not is_open(name)]
    if gateway is not None and shut:
        return Readiness(f"the mesh port {shut[0]}", len(programs), locked, gateway.log)
    return Readiness("", len(programs), locked)


def is_open(door: str) -> bool:
    """Return whether somebody listens at `address:port`."""
    address, _, port = door.rpartition(":")
    address = ANYWHERE.get(address.strip("[]"), address.strip("[]"))
    try:
        with socket.create_connection((address, int(port)), DIAL_TIMEOUT_S):
            return True
    except (OSError, ValueError, OverflowError):
        return False


def _ending(program: Program) -> str:
    if program.status == SETTINGS_STATUS:
        return "status 78: its settings are wrong"
    return program.reason or f"{program.state}, status {program.status}"


def log_of(paths: Paths, culprit: Path | None) -> Path:
    """Return the log to show when waiting ends: the culprit's, else the broker's."""
    return culprit or paths.log / "broker.log"
