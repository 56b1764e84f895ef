"""A rollover is the way to names that the present CA is not constrained to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.errors import PolicyRefusedError
from broker.wire.ids import Service
from broker.wire.policy import GetPolicy, PolicyPatch, PolicyView, SetPolicy
from tests.shell.mesh_room import pushed_clock
from tests.shell.rollover_room import RolloverRoom


@pytest.fixture
def room(home: Path) -> Iterator[RolloverRoom]:
    """Primary atlas and a member."""
    with pushed_clock() as clock:
        yield RolloverRoom.begin(home, clock, "pi")


def widen(room: RolloverRoom) -> PolicyView:
    """Permit one more domain and one more network, besides those of today."""
    console = room.primary()
    now = console.ask(Service.CONSOLE, GetPolicy(), PolicyView).policy
    patch = PolicyPatch(
        names=(*now.names, "*.example.org"), networks=(*now.networks, "203.0.113.0/24")
    )
    return console.ask(Service.CONSOLE, SetPolicy(patch, "ann"), PolicyView)


def test_a_policy_goes_beyond_the_present_ca_only_after_a_wider_one_signs(
    room: RolloverRoom,
) -> None:
    """Or the way to another domain would be closed for ever: each waits for the other."""
    with pytest.raises(PolicyRefusedError, match="beyond") as refused:
        widen(room)
    assert "rollover start --name" in refused.value.hint
    room.start(names=("*.example.org",), networks=("203.0.113.0/24",))
    with pytest.raises(PolicyRefusedError, match="beyond"):
        widen(room)
    room.run(120_000, until=lambda: room.status().trusting == room.status().members)
    room.finish()
    room.run(120_000, until=lambda: room.status().phase != "trusting")
    view = widen(room)
    assert "*.example.org" in view.policy.names
    assert "203.0.113.0/24" in view.permitted_networks


def test_a_malformed_name_for_the_next_ca_is_refused_before_a_key_is_made(
    room: RolloverRoom,
) -> None:
    """The answer comes at once, with what was meant."""
    with pytest.raises(PolicyRefusedError, match="not a network"):
        room.start(networks=("203.0.113.7/24",))
    with pytest.raises(PolicyRefusedError, match="not a domain"):
        room.start(names=("*.-x-",))
    assert room.status().phase == "none"
