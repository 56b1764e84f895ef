"""Meshes of brokers in one process, ready to be broken."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shell.mesh_room import Room, pushed_clock
from tests.shell.scenes import Make


@pytest.fixture
def make(home: Path) -> Iterator[Make]:
    """Return what opens a room with the hosts it is given."""
    with pushed_clock() as clock:
        yield lambda *hosts, **sections: Room.open(home, clock, *hosts, **sections)


@pytest.fixture
def room(make: Make) -> Room:
    """Atlas leads, birch is its standby, cedar a member."""
    room = make("birch", "cedar")
    room.nominate("birch")
    return room
