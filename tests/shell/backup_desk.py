"""An office that can be backed up, lost, and restored: as a person with a kit would do it."""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from broker.ledger.sqlite import Ledger
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import Settings
from broker.shell.backup_make import make_backup
from broker.shell.desk import Desk
from broker.shell.restore import restore_backup
from broker.shell.serve import make_state
from broker.shell.ticks import Ticks
from broker.wire.backup import (
    BackupView,
    CollectPlan,
    NoteCollected,
    PlanCollect,
    Restored,
    RestoreWish,
    TakeBackup,
)
from broker.wire.base import Request
from broker.wire.control import Ack, Fault
from broker.wire.ids import Service
from broker.wire.roster import BundleAnswer, GetBundle
from tests.shell.mesh_room import Node, Room
from tests.shell.office import Office
from tests.support import eventually


def in_process(office: Office) -> None:
    """Let this office make its backups in this process, not in one of their own."""
    office.desk.state.backups.make = partial(make_backup, office.paths)


def settle(office: Office) -> list[object]:
    """Take the outcomes of threads, as the loop does; return the late replies."""
    batch = office.desk.open_batch()
    for then, outcome in office.desk.state.offloop.finished():
        then(batch, outcome)
    outgoing: list[object] = []
    office.events.extend(office.desk.finish(batch, outgoing))  # type: ignore[arg-type]  # a list
    return [entry.reply for entry in outgoing]  # type: ignore[attr-defined]  # of `Outgoing`


def answer_of(office: Office, service: Service, request: Request) -> object:
    """Ask something that is answered later, and wait for the answer."""
    identity = office.introduce(service)
    now = office.turn([(identity, request, b"q" * 15 + bytes([len(office.events) % 256]))])
    if now:
        return now[0].reply
    late: list[object] = []

    def arrived() -> object:
        late.extend(settle(office))
        return late

    eventually(arrived, within_s=20)
    return late[0]


def backed_up(office: Office, path: str = "") -> Path:
    """Return a fresh backup of this office."""
    in_process(office)
    reply = answer_of(office, Service.CONSOLE, TakeBackup("ann", path))
    assert not isinstance(reply, Fault), reply
    assert isinstance(reply, BackupView)
    return Path(reply.backup.path)


@dataclass(frozen=True)
class Home:
    """An empty home for a restored node."""

    settings: Settings
    paths: Paths

    @classmethod
    def empty(cls, directory: Path, settings: Settings) -> "Home":
        """Make the directory."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return cls(settings, node_paths(directory / "certmesh.toml", settings))

    def restore(self, file: Path, kit: str, **wishes: object) -> Restored:
        """Restore into this home, as `python -m broker restore` does."""
        wish = RestoreWish(kit=kit, **wishes)  # type: ignore[arg-type]  # by name
        return restore_backup(self.settings, self.paths, file, wish)

    def state(self) -> dict[str, bytes]:
        """Return every file below, to see that nothing changed."""
        files = (path for path in self.paths.home.rglob("*") if path.is_file())
        return {str(path.relative_to(self.paths.home)): path.read_bytes() for path in files}


def reborn(room: Room, file: Path, kit: str, host: str = "atlas") -> Node:
    """Restore `host` on a new machine and put it into the room in place of the lost one."""
    lost = room[host].office
    lost.ledger.close()
    file = file.rename(room.home / file.name)
    shutil.rmtree(lost.paths.home)
    home = Home.empty(room.home / f"{host}-new", lost.settings)
    home.restore(file, kit)
    ledger = Ledger.open(home.paths.ledger, node=host)
    desk = Desk(make_state(lost.settings, home.paths, ledger))
    office = Office(home.paths, lost.settings, lost.creation, desk)
    node = Node(host, office, room[host].peer, Ticks(desk.state))
    room.nodes[host] = node
    return node


def collect(room: Room, node: Node) -> tuple[str, ...]:
    """Play one collecting round of the roster-sync worker; return whom it asked."""
    plan = node.ask(Service.ROSTER_SYNC, PlanCollect(), CollectPlan)
    for source in plan.sources:
        bundle = b""
        if room.reaches(node.host, source.host):
            # At the enrol port nobody shows a certificate.
            answer = room[source.host].ask(Service.GATEWAY, GetBundle(), BundleAnswer)
            bundle = answer.bundle
        node.ask(Service.ROSTER_SYNC, NoteCollected(source.host, bundle), Ack)
    return tuple(source.host for source in plan.sources)


def come_back(room: Room, node: Node, ms: int = 60_000) -> None:
    """Let the restored node ask around until it serves."""
    for _ in range(ms // 1_000):
        room.clock.push(1_000)
        collect(room, node)
        node.tick()
        if room.serves(node):
            return
    raise AssertionError(node.office.desk.state.restored)
