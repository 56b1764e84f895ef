"""The table of profiles: the answers, and that each can be given otherwise at init."""

import json
import tomllib
from pathlib import Path

import pytest

from broker.cli.profiles import SHORT_NAMES, answers_of, first_policy, overridden, profile_named
from broker.ledger.sqlite import Ledger
from broker.runtime.exits import Exit
from broker.runtime.paths import node_paths
from broker.runtime.settings import Settings
from broker.wire.policy import Policy
from broker.wire.profiles import PROFILES
from tests.cli.command import Certmesh

REPOSITORY = Path(__file__).parents[2]
FAST = ("--setting", "ca.kdf_memory=8388608", "--setting", "ca.kdf_passes=1")
LOCAL = ("--listen", "127.0.0.1", "--node-name", "atlas", *FAST)


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))


@pytest.mark.parametrize(
    ("question", "answers"),
    [
        ("enrollment_open", (True, True, False)),
        ("approval", (False, True, True)),
        ("operator_required", (False, True, True)),
        ("unattended", (True, True, False)),
    ],
)
def test_the_table_is_the_documented_one(question: str, answers: tuple[bool, ...]) -> None:
    """Three meshes for three kinds of people; the order is just-me, my-team, my-organization."""
    assert tuple(PROFILES) == ("just-me", "my-team", "my-organization")
    assert tuple(getattr(row, question) for row in PROFILES.values()) == answers


def test_the_first_policy_has_the_answers_of_its_profile() -> None:
    """And the names, networks and times of the settings."""
    for row in PROFILES.values():
        policy = first_policy(row, Settings().policy)
        assert policy.profile == row.name
        assert (policy.approval, policy.operator_required, policy.unattended) == (
            row.approval,
            row.operator_required,
            row.unattended,
        )
        assert policy.leaf_lifetime_s == Policy().leaf_lifetime_s


def test_each_answer_can_be_given_otherwise() -> None:
    """A profile is a beginning, not a cage."""
    team = profile_named("team")
    assert overridden(team, {}) == team
    assert overridden(team, {"approval": None, "name": True}) == team
    changed = overridden(team, {"enrollment_open": False, "approval": False, "unattended": False})
    assert answers_of(changed) == "enrollment is closed, nobody is asked, a person unlocks the CA"
    assert changed.operator_required is True
    assert {profile_named(short).name for short in SHORT_NAMES} == set(PROFILES)


def made(home: Path) -> tuple[bool, Policy]:
    """Return whether enrollment is open, and the policy, as the ledger of a home says."""
    ledger = Ledger.open(node_paths(home / "certmesh.toml", Settings()).ledger, node="atlas")
    try:
        mesh = ledger.mesh()
        assert mesh is not None
        return mesh.enrollment_open, mesh.policy
    finally:
        ledger.close()


@pytest.mark.parametrize("profile", list(PROFILES))
def test_init_makes_what_the_table_says(profile: str, home: Path, certmesh: Certmesh) -> None:
    """In the ledger, on the disk and on the screen."""
    row = PROFILES[profile]
    said = certmesh("init", "demo", "--profile", profile, *LOCAL)
    assert said.status == Exit.OK, said.err
    assert f"{profile}: {answers_of(row)}" in said.out
    is_open, policy = made(home)
    assert (is_open, policy.approval, policy.operator_required, policy.unattended) == (
        row.enrollment_open,
        row.approval,
        row.operator_required,
        row.unattended,
    )
    assert bool(list(home.rglob("ca-unlock*"))) is row.unattended
    assert ("ca unlock" in said.out) is not row.unattended


def test_init_takes_every_answer_by_option(home: Path, certmesh: Certmesh) -> None:
    """And repeats what it made, also for a script."""
    said = certmesh(
        *("init", "demo", "--profile", "my-organization", "--open-enrollment", "--no-approval"),
        *("--no-operator-required", "--unattended", "--json", *LOCAL),
    )
    assert said.status == Exit.OK, said.err
    body = json.loads(said.out)
    answers = ("enrollment_open", "approval", "operator_required", "unattended")
    assert [body[answer] for answer in answers] == [True, False, False, True]
    assert body["profile"] == "my-organization"
    is_open, policy = made(home)
    assert (is_open, policy.approval, policy.unattended) == (True, False, True)


@pytest.mark.parametrize("words", [(), ("--approval",)])
def test_defect_22_just_me_with_approval_on_finds_somebody_to_ask(
    words: tuple[str, ...], home: Path, certmesh: Certmesh
) -> None:
    """Without a decider every request is denied; a later policy may turn approval on."""
    assert certmesh("init", "demo", "--profile", "just-me", *words, *LOCAL).status == Exit.OK
    settings = tomllib.loads((home / "certmesh.toml").read_text())
    assert settings["approval"] == {"decider": "queue"}
