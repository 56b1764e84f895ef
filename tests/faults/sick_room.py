"""A lone broker on a disk that can be made to misbehave, and homes below one directory."""

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from broker.wire.base import Reply, Request
from broker.wire.ids import Service
from tests.faults.crash import Lab
from tests.faults.inside.failpoints import WEAKENED
from tests.faults.lone import Caller, Home, Nursery
from tests.faults.shim import power
from tests.faults.shim.disk import Disk


@dataclass(frozen=True)
class SickRoom:
    """The nursery's brokers obey `disk`; `homes` is where theirs are made."""

    nursery: Nursery
    disk: Disk
    homes: Path
    journal: Path

    def power_cut(self, chance: Random | None) -> Lab:
        """Return a lab in which every death is a power cut; without `chance` the worst one."""
        cuts = [0]

        def cut(home: Home) -> None:
            cuts[0] += 1
            power.pull(self.journal, home.paths.home, chance if cuts[0] % 2 else None)

        return Lab(self.nursery, self.homes, cut)


@contextmanager
def sick_room(*, journal: bool = False, weakened: str = "") -> Iterator[SickRoom]:
    """Open a room; with `journal` its changes are kept for power cuts."""
    with tempfile.TemporaryDirectory(prefix="cms-", dir="/tmp") as place:
        shim, homes = Path(place) / "shim", Path(place) / "homes"
        shim.mkdir()
        homes.mkdir()
        disk = Disk(shim)
        environment = disk.environment(only="nursery", below=homes if journal else None)
        try:
            with Nursery({**environment, WEAKENED: weakened}) as nursery:
                yield SickRoom(nursery, disk, homes, shim)
        finally:
            disk.close()


def ask(caller: Caller, request: Request) -> Reply:
    """Ask with a fresh id."""
    return caller.ask(secrets.token_bytes(16), request).reply


@contextmanager
def console(room: SickRoom, home: Home) -> Iterator[Caller]:
    """Yield a console of a broker on `home`, which is killed afterwards."""
    room.nursery.start(home)
    try:
        with Caller(home, room.nursery, Service.CONSOLE) as caller:
            yield caller
    finally:
        room.nursery.kill()
