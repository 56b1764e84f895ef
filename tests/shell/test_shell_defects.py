"""Defects of the reference that are named here and nowhere else."""

from pathlib import Path

import msgspec
import pytest

from broker.errors import LedgerDamagedError, MeshExistsError
from broker.ledger.sqlite import Ledger
from broker.shell.create import create_mesh
from broker.wire.ids import Service
from broker.wire.roster import HeartbeatAnswer
from tests.creation import wished
from tests.shell.office import PASSPHRASE, Office
from tests.shell.scenes import Make
from tests.shell.test_shell_revocation import a_beat


@pytest.mark.parametrize(
    "damage", [b"", b"not a database at all", b"SQLite format 3\x00" + b"\xff" * 500]
)
def test_defect_30_an_unreadable_roster_is_damage_and_never_a_node_without_a_mesh(
    damage: bytes, home: Path
) -> None:
    """The reference took it for a fresh node: the mesh was silently gone, and a new one welcome."""
    office = Office.create(home)
    office.ledger.close()
    for tail in ("-wal", "-shm"):
        Path(f"{office.paths.ledger}{tail}").unlink(missing_ok=True)
    office.paths.ledger.write_bytes(damage)

    with pytest.raises(LedgerDamagedError) as refusal:
        Ledger.open(office.paths.ledger, node="atlas")
    assert "backup" in refusal.value.hint
    assert office.paths.ledger.read_bytes() == damage
    wish = wished("home", PASSPHRASE, settings=office.settings)
    with pytest.raises(MeshExistsError):
        create_mesh(office.settings, office.paths, wish)


def test_defect_31_a_heartbeat_writes_no_roster_and_no_row(make: Make) -> None:
    """The reference rewrote the whole roster on every heartbeat; with members, all the time."""
    room = make("birch")
    room.run(3_000)
    atlas = room["atlas"].office
    beat = a_beat(room, "birch")
    atlas.ask(Service.GATEWAY, beat, HeartbeatAnswer)
    written = (atlas.ledger.head, atlas.ledger._connection.total_changes)
    for second in range(50):
        again = msgspec.structs.replace(beat, clock=beat.clock + second)
        atlas.ask(Service.GATEWAY, again, HeartbeatAnswer)
    assert (atlas.ledger.head, atlas.ledger._connection.total_changes) == written
