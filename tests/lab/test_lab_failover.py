"""The primary goes: without a word, on purpose, on a bad network, and without multicast."""

import pytest

from broker.clock import boottime_ms
from broker.wire.failover import PeersView
from tests.lab.link import Quality
from tests.lab.machine import CARD
from tests.lab.mesh import GRACE_S, Mesh
from tests.lab.takeover import FOLLOW_S, RETURN_S, agree, follow, renewed, taken_over
from tests.support import eventually, throughout

HAND_OVER_S = 3.0
BAD_LINK = Quality(loss=0.2, delay_ms=80, jitter_ms=40)
pytestmark = [pytest.mark.mesh, pytest.mark.timeout(180)]


def test_a_primary_without_power_is_replaced_and_comes_back_as_a_standby(mesh: Mesh) -> None:
    """One primary at any time; what only the lost disk knew comes home with it (P9)."""
    atlas, term = mesh.host("atlas"), mesh.term("birch")
    began_ms = boottime_ms()
    mesh.lab.cut_from_all("atlas")
    atlas.certmesh("invite", "create", "rowan")
    atlas.power_off()
    taken = taken_over(mesh, "birch", began_ms)
    assert taken.is_due, taken
    assert taken.term == term + 1
    eventually(lambda: follow(mesh, "birch", "cedar", "dogwood"), FOLLOW_S)
    assert renewed(mesh, "dogwood", at="birch")
    assert mesh.journal("birch", "merge.adopted") == []
    mesh.lab.heal()
    atlas.power_on()
    atlas.start_pool()
    eventually(lambda: mesh.is_ready("atlas", on="birch"), RETURN_S)
    assert mesh.serving() == ["birch"]
    adopted = eventually(lambda: mesh.journal("birch", "merge.adopted"), FOLLOW_S)
    # Nothing else: what it wrote after its return, it would have written in an outranked term.
    assert [row.fields["event"] for row in adopted] == ["invite.created"]
    eventually(lambda: head(mesh, "atlas") == head(mesh, "birch"), FOLLOW_S)


def test_a_planned_hand_over_takes_no_grace_period(mesh: Mesh) -> None:
    """The last beat is signed; nobody has to wait for silence."""
    term, began_ms = mesh.term("birch"), boottime_ms()
    mesh.host("atlas").certmesh("standby", "step-down", "--yes")
    taken = taken_over(mesh, "birch", began_ms)
    assert (taken.cause, taken.term) == ("handover", term + 1)
    assert taken.took_s < HAND_OVER_S < GRACE_S, taken
    eventually(lambda: mesh.phase("atlas") == "following", FOLLOW_S)
    assert renewed(mesh, "cedar", at="birch")


def test_a_primary_that_is_stopped_hands_over_first(mesh: Mesh) -> None:
    """`certmesh down`: the watchdog hears of it, the last beat leaves before the failover loop."""
    term, began_ms = mesh.term("birch"), boottime_ms()
    mesh.host("atlas").stop_pool()
    taken = taken_over(mesh, "birch", began_ms)
    assert (taken.cause, taken.term) == ("handover", term + 1)
    mesh.host("atlas").start_pool()
    eventually(lambda: mesh.phase("atlas") == "following", RETURN_S)


def test_a_bad_network_is_no_death_and_hides_none(mesh: Mesh) -> None:
    """Each frame is late and every fifth is lost, for everybody.

    The heir's beats may be lost for longer than the stagger: then the next one leads too, until
    they hear of each other, and one is left. (row 31)
    """
    mesh.lab.link_all(BAD_LINK)
    throughout(lambda: mesh.serving() == ["atlas"], for_s=2.5 * GRACE_S)
    began_ms = boottime_ms()
    mesh.lab.cut_from_all("atlas")
    taken = taken_over(mesh, "birch", began_ms)
    assert taken.is_due, taken
    eventually(lambda: agree(mesh, "birch", "cedar", "dogwood"), RETURN_S)


def test_a_lan_without_multicast_loses_no_takeover(mesh: Mesh) -> None:
    """What is known from the roster is asked as before; mDNS only ever found addresses (row 22)."""
    mesh.lab.link_all(Quality(no_multicast=True))
    route = mesh.host("cedar").execute("ip", "route", "del", "224.0.0.0/4", "dev", CARD)
    assert route.returncode == 0, route.stderr
    began_ms = boottime_ms()
    mesh.lab.cut_from_all("atlas")
    taken = taken_over(mesh, "birch", began_ms)
    assert taken.is_due, taken
    eventually(lambda: follow(mesh, "birch", "cedar", "dogwood"), FOLLOW_S)
    eventually(lambda: mesh.is_ready("cedar", on="birch"), FOLLOW_S)
    hints = mesh.host("cedar").ask("/v1/peers", PeersView).hints
    assert "certmesh-ca-birch" not in [hint.instance for hint in hints]


def head(mesh: Mesh, name: str) -> int:
    """Return where the journal of a key holder ends."""
    return mesh.host(name).node().sequence
