"""A short, fixed set of seeds; `python -m tests.faults` plays as many as one likes."""

from collections.abc import Iterator

import pytest

from tests.faults.harness.lane import Lane, Stage
from tests.faults.harness.schedule import Choice, draw
from tests.faults.injectors.catalogue import all_injectors

PORT = 30_900
PATIENCE = 4.0
"""The suite shares its machine; figures come from `make faults` on an idle one."""
ALONE = (
    ("kill-broker", 101),
    ("kill-workers", 102),
    ("power-cut", 103),
    ("kill-supervisord", 104),
    ("garbage", 105),
)
PARTED = (("kill-broker", 201), ("partition", 202), ("kill", 203))
pytestmark = [pytest.mark.faults, pytest.mark.mesh, pytest.mark.timeout(400)]


def stages(port: int) -> Iterator[Stage]:
    """Give a stage whose mesh is gone afterwards."""
    stage = Stage(port)
    yield stage
    stage.clear()


@pytest.fixture(scope="module")
def lone() -> Iterator[Stage]:
    """Where seeds of one node share a mesh."""
    yield from stages(PORT)


@pytest.fixture(scope="module")
def three() -> Iterator[Stage]:
    """Where seeds of three nodes share a mesh."""
    yield from stages(PORT + 10)


def play(stage: Stage, name: str, seed: int, nodes: int) -> None:
    """Play one seed with one kind of fault; fail with all that the harness says."""
    said: list[str] = []
    (injector,) = (found for found in all_injectors() if found.name == name)
    lane = Lane(PORT, patience=PATIENCE)
    plan = draw(seed, [Choice(name, 1)], nodes)
    verdict = lane.play_plan(plan, stage, {name: injector}, said.append)
    assert not verdict.wrong, "\n".join(said)
    assert verdict.answers > 0, "a seed in which nobody asked shows nothing"


@pytest.mark.parametrize(("name", "seed"), ALONE)
def test_a_lone_node_keeps_its_promises(lone: Stage, name: str, seed: int) -> None:
    """Nothing told is lost, doubled or untyped, whatever dies meanwhile.

    Rows: (row 1) (row 5) (row 7) (row 34) (row 39) (row 43). Promises: (P1) (P2) (P5) (P6).
    """
    play(lone, name, seed, 1)


@pytest.mark.parametrize(("name", "seed"), PARTED)
def test_three_nodes_keep_their_promises(three: Stage, name: str, seed: int) -> None:
    """What one primary acknowledged, every key holder has after they met.

    Rows: (row 26) (row 29). Promises: (P1) (P5) (P6).
    """
    play(three, name, seed, 3)
