"""Plans come from seeds alone, and are what the harness says of itself."""

import subprocess
import sys

import pytest

from broker.wire.node import Endpoint, MeshView, NodeView
from tests.faults.harness.mesh import NAMES, disagreement
from tests.faults.harness.report import figures_of, line_of
from tests.faults.harness.run import Settled, Verdict
from tests.faults.harness.schedule import BLOCK, BLOWS_MAX, SIZES, Choice, draw, size_of
from tests.faults.injectors.catalogue import all_injectors

CHOICES = [Choice("heavy", 9), Choice("light", 1), Choice("never", 0)][:2]


def test_a_seed_is_a_plan_and_always_the_same_one() -> None:
    """What failed once can be looked at again."""
    assert draw(7, CHOICES) == draw(7, CHOICES)
    assert draw(7, CHOICES) != draw(8, CHOICES)


def test_plans_are_bounded() -> None:
    """At most so many faults, each with its whole preference, on the mesh of its block."""
    for seed in range(200):
        plan = draw(seed, CHOICES)
        assert 1 <= len(plan.blows) <= BLOWS_MAX
        assert plan.size == SIZES[seed // BLOCK % len(SIZES)] == size_of(seed)
        assert all(sorted(blow.wishes) == ["heavy", "light"] for blow in plan.blows)
        assert not plan.blows[0].overlaps


def test_heavy_injectors_come_first_more_often() -> None:
    """Weights decide how often a fault is seen."""
    firsts = [blow.wishes[0] for seed in range(300) for blow in draw(seed, CHOICES).blows]
    assert 0.8 < firsts.count("heavy") / len(firsts) < 0.97


def test_faults_overlap_sometimes() -> None:
    """Safety is promised also while two things are broken."""
    later = [blow.overlaps for seed in range(300) for blow in draw(seed, CHOICES).blows[1:]]
    assert 0.15 < sum(later) / len(later) < 0.45


def test_injectors_have_names_of_their_own_and_bounds() -> None:
    """The schedule knows them by name."""
    found = all_injectors()
    assert len({injector.name for injector in found}) == len(found) > 10
    assert all(injector.weight > 0 and injector.settles_s > 0 for injector in found)


def test_the_list_of_plans_breaks_nothing_and_repeats_itself() -> None:
    """`--list` prints what `--seeds` does, in any process."""
    words = [sys.executable, "-m", "tests.faults", "--list", "--seeds", "3", "--first", "40"]
    first, second = (
        subprocess.run(words, capture_output=True, text=True, check=True).stdout for _ in range(2)
    )
    assert first == second
    assert first.count("seed 4") == 3


def view(host: str, role: str, primary: str = "atlas", row: int = 9, bundle: int = 8) -> NodeView:
    """Return what a node says of itself."""
    doors = Endpoint(primary, ("127.0.0.1",), 1, 2, f"{primary}.x")
    mesh = MeshView("aa", "x", "x", "bb", 1, doors)
    phase = "serving" if role == "primary" else "following"
    return NodeView(host, role, "unlocked", 1, row, bundle, mesh, phase=phase, bundle_term=1)  # type: ignore[arg-type]


WELL = {
    "atlas": view("atlas", "primary"),
    "birch": view("birch", "standby"),
    "cedar": view("cedar", "member", row=0),
}


def test_nodes_of_one_mind_agree() -> None:
    """One primary that all follow, its rows and its bundle everywhere."""
    assert disagreement(WELL) == ""


@pytest.mark.parametrize(
    ("name", "odd", "why"),
    [
        ("birch", view("birch", "primary", "birch"), "primaries"),
        ("atlas", view("atlas", "standby"), "primaries: []"),
        ("cedar", view("cedar", "member", "birch"), "cedar follows birch"),
        ("birch", view("birch", "standby", row=8), "birch has row 8"),
        ("cedar", view("cedar", "member", bundle=7), "cedar has bundle 7"),
    ],
)
def test_a_node_of_another_mind_is_named(name: str, odd: NodeView, why: str) -> None:
    """Content is only who agrees in everything."""
    assert why in disagreement({**WELL, name: odd})
    assert set(WELL) == set(NAMES)


def test_the_report_shows_failures_and_figures_of_lone_faults() -> None:
    """A figure belongs to one cause, so seeds with several faults are left out of it."""
    good = Verdict(draw(1, CHOICES), ["kill: x"], [], Settled(("kill",), 1500, 700), 40, 3000)
    both = Verdict(draw(2, CHOICES), [], [], Settled(("kill", "cut"), 9000, 900), 40, 9000)
    bad = Verdict(draw(3, CHOICES), ["kill: x"], ["lost"])
    assert line_of(good).startswith("ok ")
    assert line_of(bad).startswith("FAIL")
    lines = list(figures_of([good, both, bad]))
    assert any(line.startswith("kill ") and " 1.50 s" in line for line in lines)
    assert any(line.startswith("cut ") for line in lines)
