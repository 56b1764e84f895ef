"""The compliance summary over real brokers."""

import pytest

from broker.errors import NotPrimaryError
from broker.wire.audit import ComplianceView, GetCompliance
from broker.wire.ids import Service
from tests.shell.mesh_room import Room
from tests.shell.scenes import Make
from tests.shell.settled import settled


def states(room: Room, host: str) -> dict[str, str]:
    """Return the state of each rule as a node sees it."""
    view = settled(room[host].office, GetCompliance(), ComplianceView)
    assert view.mesh_name == "home"
    return {line.rule: line.state for line in view.lines}


def test_a_primary_judges_its_mesh(room: Room) -> None:
    """A ready standby and members that vouch are seen; what is missing is named."""
    room.run(3_000)
    found = states(room, "atlas")
    assert (found["standby"], found["witnesses"], found["audit"]) == ("ok", "ok", "ok")
    assert (found["certificates"], found["policy"]) == ("ok", "ok")
    assert (found["ca-at-rest"], found["unlock"]) == ("ok", "ok")


def test_a_standby_judges_what_it_can(room: Room) -> None:
    """It has the roster, and says what only the primary hears."""
    room.run(3_000)
    found = states(room, "birch")
    assert found["audit"] == "ok"
    assert found["witnesses"] == "warn"


def test_a_mesh_of_one_fails_where_it_would_hurt(make: Make) -> None:
    """Nobody could take over, and nobody would notice an exchanged journal."""
    room = make()
    found = states(room, "atlas")
    assert (found["standby"], found["witnesses"], found["backup"]) == ("fail", "fail", "fail")


def test_a_member_has_no_roster_to_judge(make: Make) -> None:
    """It says who has."""
    room = make("birch")
    with pytest.raises(NotPrimaryError):
        room["birch"].ask(Service.CONSOLE, GetCompliance(), ComplianceView)
