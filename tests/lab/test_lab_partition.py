"""Cables are cut, in both directions or in one, between two nodes or around one, and mended."""

from collections.abc import Callable

import pytest

from broker.clock import boottime_ms
from tests.lab.mesh import GRACE_S, STANDBYS, STRANGER, Mesh
from tests.lab.takeover import FOLLOW_S, RETURN_S, follow, renewed, taken_over
from tests.support import eventually, throughout

EXIT_CONFLICT = 9
SUBSIDE_S = 2.0
Cut = Callable[[Mesh, str, str], None]
pytestmark = [pytest.mark.mesh, pytest.mark.timeout(180)]


def both_ways(mesh: Mesh, one: str, other: str) -> None:
    """Let nothing pass between two hosts."""
    mesh.lab.cut(one, other)


def silenced(mesh: Mesh, one: str, other: str) -> None:
    """Let `other` hear nothing of `one`, which hears everything."""
    mesh.lab.cut(one, other, one_way=True)


def deafened(mesh: Mesh, one: str, other: str) -> None:
    """Let `one` hear nothing of `other`, which hears everything."""
    mesh.lab.cut(other, one, one_way=True)


CUTS = pytest.mark.parametrize("cut", [both_ways, silenced, deafened])


@CUTS
def test_members_carry_the_beats_of_a_primary_that_no_standby_reaches(mesh: Mesh, cut: Cut) -> None:
    """One member between them is enough: nobody takes over, however long it lasts (row 30)."""
    term = mesh.term("birch")
    for standby in STANDBYS:
        cut(mesh, "atlas", standby)
    eventually(lambda: all(is_unheard(mesh, name) for name in STANDBYS), 3 * GRACE_S)
    throughout(lambda: mesh.serving() == ["atlas"], SUBSIDE_S)
    mesh.lab.heal()
    eventually(mesh.is_whole, RETURN_S)
    assert mesh.term("birch") == term


def is_unheard(mesh: Mesh, standby: str) -> bool:
    """Whether a standby has heard nothing of the primary itself for a grace period."""
    return mesh.line("atlas", on=standby).state == "away"


@CUTS
def test_a_primary_cut_from_everybody_steps_down_when_it_hears_again(mesh: Mesh, cut: Cut) -> None:
    """Exactly one takes over, in the next term; no two of them serve once the cable is mended.

    (rows 26, 28, P9)
    """
    term, began_ms = mesh.term("birch"), boottime_ms()
    for host in (*(member.name for member in mesh.members), STRANGER):
        cut(mesh, "atlas", host)
    taken = taken_over(mesh, "birch", began_ms)
    assert taken.is_due, taken
    assert mesh.serving() == ["atlas", "birch"]
    assert taken.term == term + 1
    mesh.lab.heal()
    eventually(lambda: mesh.serving() == ["birch"], FOLLOW_S)
    throughout(lambda: mesh.serving() == ["birch"], SUBSIDE_S)
    eventually(lambda: follow(mesh, "birch", "atlas", "cedar", "dogwood"), FOLLOW_S)
    assert mesh.term("atlas") == mesh.term("dogwood") == term + 1


def test_a_revocation_on_the_side_that_was_cut_off_holds_on_both(mesh: Mesh) -> None:
    """What merges is done on either side; what does not is refused by the lonely one.

    (rows 26, 29, P5)
    """
    victim = mesh.enroll_stranger()
    mesh.lab.cut_from_all("atlas")
    taken = taken_over(mesh, "birch", boottime_ms())
    atlas = mesh.host("atlas")
    refused = atlas.run("invite", "create", "rowan")
    assert refused.returncode == EXIT_CONFLICT, refused.stdout
    assert "isolated" in refused.stdout
    atlas.certmesh("member", "revoke", STRANGER, "--reason", "stolen", "--yes")
    assert not mesh.is_revoked(STRANGER, victim, on="birch")
    mesh.lab.heal()
    eventually(lambda: mesh.is_ready("atlas", on="birch"), RETURN_S)
    eventually(lambda: mesh.is_revoked(STRANGER, victim, on="birch"), FOLLOW_S)
    eventually(lambda: mesh.is_revoked(STRANGER, victim, on="atlas"), FOLLOW_S)
    assert mesh.serving() == ["birch"]
    assert mesh.term("birch") == taken.term
    # Signed by the one in charge, not by the one that was.
    assert renewed(mesh, "atlas", at="birch")
