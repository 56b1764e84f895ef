"""Two standbys: the first in the order is locked, dead, behind, or alone, and the next one acts."""

import pytest

from broker.clock import boottime_ms
from tests.lab.mesh import GRACE_S, STAGGER_S, Mesh
from tests.lab.takeover import FOLLOW_S, NOISE_S, RETURN_S, follow, taken_over
from tests.support import eventually, throughout

EXCUSED_S = 5.0
pytestmark = [pytest.mark.mesh, pytest.mark.timeout(180)]


def test_a_locked_first_standby_costs_no_time(mesh: Mesh) -> None:
    """It says so itself, is passed over at once, and never leads (row 32, P9)."""
    birch = mesh.host("birch")
    led = len(birch.events("broker", "failover.promoted"))
    birch.certmesh("ca", "lock")
    eventually(lambda: mesh.line("birch", on="cedar").state == "locked", EXCUSED_S)
    began_ms = boottime_ms()
    mesh.lab.cut_from_all("atlas")
    taken = taken_over(mesh, "cedar", began_ms)
    assert GRACE_S <= taken.silent_s < GRACE_S + STAGGER_S, taken
    assert taken.is_due, taken
    eventually(lambda: follow(mesh, "cedar", "birch", "dogwood"), FOLLOW_S)
    assert mesh.phase("birch") == "following"
    assert len(birch.events("broker", "failover.promoted")) == led


def test_a_dead_first_standby_costs_one_stagger(mesh: Mesh) -> None:
    """Nobody said that it could not; the next one waits for it, but not for ever (row 32, P9)."""
    began_ms = boottime_ms()
    for lost in ("atlas", "birch"):
        mesh.host(lost).power_off()
    taken = taken_over(mesh, "cedar", began_ms)
    assert taken.silent_s >= GRACE_S + STAGGER_S, taken
    assert taken.took_s < GRACE_S + STAGGER_S + NOISE_S, taken
    eventually(lambda: follow(mesh, "cedar", "dogwood"), FOLLOW_S)


def test_a_first_standby_that_lacks_rows_leaves_it_to_the_next(mesh: Mesh) -> None:
    """Others showed it a head that it has not reached: it must not lead, and says so (row 32)."""
    mesh.lab.cut("atlas", "birch")
    mesh.host("atlas").certmesh("invite", "create", "rowan")
    eventually(lambda: mesh.line("birch", on="cedar").state == "lagging", FOLLOW_S)
    term, began_ms = mesh.term("cedar"), boottime_ms()
    mesh.lab.cut_from_all("atlas")
    taken = taken_over(mesh, "cedar", began_ms)
    assert GRACE_S <= taken.silent_s < GRACE_S + STAGGER_S, taken
    assert taken.term == term + 1
    eventually(lambda: mesh.is_ready("birch", on="cedar"), RETURN_S)
    assert mesh.serving() == ["atlas", "cedar"]


def test_a_lonely_standby_holds_back_and_says_why(mesh: Mesh) -> None:
    """Who hears nobody is the one that is cut off; afterwards it catches up (row 27)."""
    term = mesh.term("birch")
    mesh.lab.cut_from_all("birch")
    mesh.host("atlas").certmesh("invite", "create", "rowan")
    eventually(lambda: says(mesh, "birch", "isolated"), 2 * GRACE_S)
    throughout(lambda: mesh.phase("birch") == "suspecting", for_s=GRACE_S / 2)
    assert mesh.serving() == ["atlas"]
    mesh.lab.heal()
    eventually(lambda: mesh.is_ready("birch", on="atlas"), RETURN_S)
    assert (mesh.phase("birch"), mesh.view("birch").withheld) == ("following", "")
    assert mesh.term("birch") == term


def says(mesh: Mesh, name: str, reason: str) -> bool:
    """Whether a standby gives this reason for holding back."""
    withheld = mesh.view(name).withheld
    assert withheld.startswith(reason), f"{name} says {withheld!r}"
    return True
