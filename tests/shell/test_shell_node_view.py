"""The view of a node that all its loops act on, composed again whenever something in it moved."""

from pathlib import Path

from broker.core.observation import Leader
from broker.wire.ids import Service
from broker.wire.node import GetNode, NodeView
from tests.shell.mesh_room import Room, pushed_clock


def test_a_leader_that_was_learned_after_its_bundle_is_shown_at_once(home: Path) -> None:
    """The bundle of a new term may come first; only the beats that follow say who leads in it."""
    with pushed_clock() as clock:
        room = Room.open(home, clock, "birch", "cedar")
        room.nominate("birch")
        room.run(2_000)
        assert primary_of(room, "cedar") == "atlas"
        election = room["cedar"].office.desk.state.election
        assert election is not None
        election.leader = Leader("birch", election.term + 1)
        assert primary_of(room, "cedar") == "birch"


def primary_of(room: Room, host: str) -> str:
    """Return who leads, as a node tells its own loops."""
    view = room[host].ask(Service.RENEWAL, GetNode(), NodeView)
    assert view.mesh is not None
    assert view.mesh.primary is not None
    return view.mesh.primary.host
