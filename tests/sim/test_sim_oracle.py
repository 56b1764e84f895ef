"""The oracle itself: it sees what it is there to see, and the world does what it says."""

import pytest

from broker.core.observation import Rules, Timing
from broker.wire.facts import FailoverConfirmed, MemberJoined, MemberRevoked
from tests.sim.book import Row
from tests.sim.chaos import bound_ms
from tests.sim.oracle import Violation
from tests.sim.workload import NOWHERE, PAPER
from tests.sim.world import Shape, World

RULES = Rules(Timing(5_000, 30_000, 10_000))


def mesh(holders: int = 3, members: int = 1, seed: int = 1) -> World:
    """Return a mesh that has settled; `a` is its primary."""
    world = World(seed, Shape(holders, members, RULES))
    world.run_until(20_000)
    assert [node.host for node in world.holders if node.serving] == ["a"]
    return world


def later(world: World, wait_ms: int) -> None:
    """Let time pass."""
    world.run_until(world.net.now + wait_ms)


def serving(world: World) -> list[str]:
    """Return who serves."""
    return [node.host for node in world.holders if node.serving]


def cut(world: World, one: str, other: str) -> None:
    """Cut a link in both directions."""
    a, b = world.by_host[one].index, world.by_host[other].index
    world.net.set_cut(a, b, 1)
    world.net.set_cut(b, a, 1)


def test_a_quiet_mesh_changes_nothing() -> None:
    """An hour without faults is an hour with one primary."""
    world = mesh()
    later(world, 3_600_000)
    assert serving(world) == ["a"]
    assert world.oracle.terms.keys() == {1}


def test_the_first_standby_replaces_a_dead_primary_within_grace_and_three_ticks() -> None:
    """The promise of the mesh (P9)."""
    world = mesh()
    world.kill(world.by_host["a"])
    later(world, 30_000 + 3 * 5_000)
    assert serving(world) == ["b"]


def test_a_dead_first_standby_costs_one_stagger() -> None:
    """Nobody waits for the dead for ever."""
    world = mesh()
    world.kill(world.by_host["a"])
    world.kill(world.by_host["b"])
    later(world, 30_000 + 10_000 + 3 * 5_000)
    assert serving(world) == ["c"]


def test_a_locked_first_standby_costs_nothing() -> None:
    """It said itself that it cannot, so nobody waits for it."""
    world = mesh()
    world.set_lock(world.by_host["b"], locked=True)
    later(world, 10_000)
    world.kill(world.by_host["a"])
    later(world, 30_000 + 3 * 5_000)
    assert serving(world) == ["c"]


def test_a_planned_hand_over_takes_less_than_three_seconds() -> None:
    """A signed last beat spares everybody the grace."""
    world = mesh()
    world.by_host["a"].begin_leaving("b")
    later(world, 3_000)
    assert serving(world) == ["b"]
    later(world, 60_000)
    assert serving(world) == ["b"], "nobody falls back by itself"


def test_a_returned_primary_follows_and_writes_nothing_in_its_old_term() -> None:
    """It asks first; somebody tells it."""
    world = mesh()
    former = world.by_host["a"]
    world.kill(former)
    later(world, 60_000)
    rows = len(former.disk.book.rows)
    world.restart(former, rebooted=True)
    later(world, 60_000)
    assert serving(world) == ["b"]
    assert [row.node for row in former.disk.book.rows[rows:]] == ["b"]


def test_key_holders_that_meet_only_through_a_member_settle_who_leads() -> None:
    """Members are the witnesses: beats travel with their heartbeats (row 30)."""
    world = mesh(holders=2, members=1)
    cut(world, "a", "b")
    cut(world, "a", "c")
    later(world, 60_000)
    assert serving(world) == ["a", "b"], "apart, both go on"
    world.net.set_cut(0, 2, -1)
    world.net.set_cut(2, 0, -1)
    later(world, bound_ms(world))
    assert serving(world) == ["b"]


def test_a_standby_that_hears_nobody_waits() -> None:
    """It is the one that is cut off."""
    world = mesh()
    for other in ("a", "c", "d"):
        cut(world, "b", other)
    later(world, 300_000)
    assert serving(world) == ["a"]
    assert "isolated" in world.by_host["b"].election.withheld


def test_a_revoked_key_holder_takes_over_nothing_and_is_not_waited_for() -> None:
    """Everybody refuses it, whatever it signs with the key that cannot be taken back."""
    world = mesh()
    world.expel(world.by_host["a"], world.by_host["b"])
    later(world, 20_000)
    assert world.by_host["b"].election.role == "member"
    world.kill(world.by_host["a"])
    later(world, 30_000 + 3 * 5_000)
    assert serving(world) == ["c"]


def test_a_paused_standby_promotes_itself_on_no_account() -> None:
    """It was away, not the primary (row 21)."""
    world = mesh()
    for pause_ms in (16_000, 60_000, 600_000):
        world.pause(world.by_host["b"])
        later(world, pause_ms)
        world.resume(world.by_host["b"])
        later(world, 60_000)
    assert world.oracle.terms.keys() == {1}


def test_a_paused_primary_that_was_replaced_writes_nothing_when_it_wakes() -> None:
    """The nasty case: it believes that it still serves (row 21, P4)."""
    world = mesh()
    former = world.by_host["a"]
    world.pause(former)
    later(world, 60_000)
    rows = len(former.disk.book.rows)
    world.resume(former)
    assert former.halted()
    later(world, 60_000)
    assert serving(world) == ["b"]
    assert {row.node for row in former.disk.book.rows[rows:]} == {"b"}


def test_what_the_loser_of_a_partition_wrote_comes_home() -> None:
    """Both sides may renew and revoke; nothing that was acknowledged is lost."""
    world = mesh()
    for other in ("b", "c", "d"):
        cut(world, "a", other)
    member = f"{PAPER}1"
    former = world.by_host["a"]
    former.write(MemberJoined(member, "paper", (), "member", NOWHERE, "invite"))
    [row] = former.write(MemberRevoked(member, "paper", "lost"))
    later(world, 60_000)
    assert serving(world) == ["a", "b"]
    world.heal()
    later(world, bound_ms(world))
    assert serving(world) == ["b"]
    for node in world.holders:
        assert row.hash in node.disk.book.hashes
        assert member in node.disk.book.revoked


def test_a_primary_adopts_what_it_once_set_aside_itself() -> None:
    """Whoever was to adopt it is gone, and nobody else has it."""
    world = mesh()
    former = world.by_host["b"]
    [row] = world.by_host["a"].write(FailoverConfirmed("a", "a row that b will lose"))
    later(world, 1_000)
    former.disk.book.cut(row.sequence - 1)
    orphan = Row(row.sequence, 1, "b", "ff", FailoverConfirmed("b", "by itself"), 4711)
    former.disk.book.archive = {orphan.hash: orphan}
    world.kill(world.by_host["a"])
    later(world, 60_000)
    assert serving(world) == ["b"]
    for node in (former, world.by_host["c"]):
        assert orphan.hash in node.disk.book.hashes


def test_a_hostile_member_that_replays_everything_keeps_nobody_from_taking_over() -> None:
    """Old beats prove nothing, forged ones less."""
    world = World(3, Shape(3, 2, RULES, hostile=True))
    world.run_until(120_000)
    world.kill(world.by_host["a"])
    later(world, 30_000 + 3 * 5_000)
    assert serving(world) == ["b"]


def test_the_oracle_objects_to_a_second_writer_of_a_term() -> None:
    """A blind oracle would pass everything."""
    world = mesh()
    standby = world.by_host["b"]
    standby.election.term = 1
    with pytest.raises(Violation, match="of another"):
        standby.write(FailoverConfirmed("b", "by nobody"))


def test_the_oracle_objects_to_a_demotion_for_nobody() -> None:
    """Only what really outranks may depose."""
    world = mesh()
    primary = world.by_host["a"]
    primary.election.highest_term = 9
    with pytest.raises(Violation, match="invariant 7"):
        later(world, 10_000)
