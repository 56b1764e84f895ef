"""What happens to a world: a plan of faults drawn from its seed, and the way back to peace."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from broker.core.observation import Rules, Timing
from tests.sim.keyholder import Node
from tests.sim.machine import Disk
from tests.sim.oracle import Oracle
from tests.sim.world import DEFAULT_RULES, Shape, World

CALM_MS = 20_000
QUIET_MS = 45_000

Fault = Callable[[World, Random], None]


@dataclass(frozen=True)
class Focus:
    """What a run looks at.

    Args:
        faults: Kinds of faults by name; all of them when empty.
        hostile: Whether one member is always in the hands of somebody else.
        measuring: Only measure, object to nothing.
    """

    faults: tuple[str, ...] = ()
    hostile: bool = False
    measuring: bool = False


EVERYTHING = Focus()


def draw_shape(rng: Random, *, hostile: bool) -> Shape:
    """Return a mesh of two to four key holders and up to three members."""
    holders = rng.choice((2, 2, 3, 3, 3, 4))
    members = rng.choice((0, 1, 1, 2, 2)) if holders < 4 else rng.choice((0, 1, 2))
    rules = DEFAULT_RULES
    if rng.random() < 0.15:
        rules = Rules(Timing(2_000, 12_000, 4_000))
    first = rng.randrange(holders)
    chance = rng.random() < 0.35
    if hostile:
        return Shape(holders, max(2, members), rules, hostile=True, first=first)
    return Shape(holders, members, rules, hostile=members > 1 and chance, first=first)


def play(seed: int, focus: Focus = EVERYTHING) -> World:
    """Run one schedule from its seed to its end.

    Raises:
        Violation: An invariant does not hold.
    """
    rng = Random(seed ^ 0x5EED)
    world = World(seed, draw_shape(rng, hostile=focus.hostile))
    world.oracle.measuring = focus.measuring
    try:
        _play(world, rng, focus)
    except Exception as error:
        error.add_note("\n".join((f"seed {seed}", *world.lines[-60:])))
        raise
    return world


def bound_ms(world: World) -> int:
    """Return how long a whole mesh may take to have exactly one primary (invariant 8)."""
    timing = world.rules.timing
    return timing.grace_ms + (len(world.holders) + 1) * timing.stagger_ms + timing.settle_ms


def _play(world: World, rng: Random, focus: Focus) -> None:
    net = world.net
    world.workload.start()
    world.run_until(CALM_MS)
    chaos_end = CALM_MS + rng.randrange(140_000, 260_000)
    _plan(world, rng, chaos_end, focus.faults)
    world.run_until(chaos_end)
    if rng.random() < 0.35:
        _settle_in_parts(world, rng)
    world.share.counting = False
    world.workload.running = False
    world.heal()
    world.run_until(net.now + bound_ms(world))
    _peace(world, world.oracle)


def _peace(world: World, oracle: Oracle) -> None:
    """Demand one primary; where only an operator can help, be the operator."""
    if not oracle.ending.anybody_ready():
        world.log(None, "nobody is caught up: the operator forces one")
        world.forced = True
        left = oracle.ending.survivors()
        best = max(left, key=lambda node: (node.disk.book.last_term, node.disk.book.end))
        best.election.call(best.clock(), force=True)
        world.run_until(world.net.now + 30_000)
    oracle.ending.check_component(world.nodes)
    world.run_until(world.net.now + QUIET_MS)
    oracle.ending.check_end()


def _settle_in_parts(world: World, rng: Random) -> None:
    """Heal all but a partition; each part must settle, also if only members connect it."""
    world.heal()
    parts = _split(world, rng)
    relayed = bool(world.members) and rng.random() < 0.4 and world.hostile is None
    for one in world.nodes:
        for other in world.nodes:
            holders = one.key_holder and other.key_holder and one is not other
            if parts[one.index] != parts[other.index] or (relayed and holders):
                world.net.set_cut(one.index, other.index, 1)
    world.log(None, f"settles in parts {parts}{' through members only' if relayed else ''}")
    extra_ms = 2 * world.oracle.relayed_ms if relayed else 0
    world.run_until(world.net.now + bound_ms(world) + extra_ms)
    for part in set(parts):
        nodes = [node for node in world.nodes if parts[node.index] == part]
        nodes = [node for node in nodes if node.up and not world.is_out(node)]
        members = [node for node in nodes if not node.key_holder]
        if len(nodes) > 2 and (members or not relayed):
            world.oracle.ending.check_component(nodes)


def _split(world: World, rng: Random) -> list[int]:
    return [rng.randrange(2) for _ in world.nodes]


# Faults. Each undoes itself later.


def _later(world: World, rng: Random, low: int, high: int) -> int:
    return world.net.now + rng.randrange(low, high)


def _any(world: World, rng: Random) -> Node:
    return rng.choice(world.nodes)


def _holder(world: World, rng: Random) -> Node:
    """Return a key holder, the primary more often than others."""
    serving = [node for node in world.holders if node.serving]
    if serving and rng.random() < 0.5:
        return rng.choice(serving)
    return rng.choice(world.holders)


def crash(world: World, rng: Random) -> None:
    """A process dies, or the whole machine does."""
    node = _holder(world, rng) if rng.random() < 0.8 else _any(world, rng)
    world.kill(node)
    rebooted = rng.random() < 0.5
    until = _later(world, rng, 500, 12_000 if rng.random() < 0.4 else 90_000)
    world.later(until, world.restart, node, rebooted)


def pause(world: World, rng: Random) -> None:
    """A process is stopped, or its machine suspended, for longer than the fence or less."""
    node = _holder(world, rng) if rng.random() < 0.85 else _any(world, rng)
    world.pause(node)
    until = _later(world, rng, 2_000, 20_000 if rng.random() < 0.3 else 100_000)
    world.later(until, world.resume, node)


def _cut_pairs(
    world: World, rng: Random, pairs: list[tuple[int, int]], high: int = 110_000
) -> None:
    for source, target in pairs:
        world.net.set_cut(source, target, 1)
    until = _later(world, rng, 8_000, high)
    world.later(until, _mend, world, pairs)


def _mend(world: World, pairs: list[tuple[int, int]]) -> None:
    world.log(None, f"mends {pairs}")
    for source, target in pairs:
        if world.net.cut[source][target]:
            world.net.set_cut(source, target, -1)


def partition(world: World, rng: Random) -> None:
    """The mesh falls into two parts."""
    parts = _split(world, rng)
    world.log(None, f"partition {parts}")
    count = range(len(world.nodes))
    pairs = [(i, j) for i in count for j in count if parts[i] != parts[j]]
    _cut_pairs(world, rng, pairs)


def one_way(world: World, rng: Random) -> None:
    """One node is not heard by another, or by anybody."""
    node, count = _holder(world, rng), range(len(world.nodes))
    others = [i for i in count if i != node.index]
    if rng.random() < 0.6:
        others = [rng.choice(others)]
    outward = rng.random() < 0.5
    pairs = [(node.index, i) if outward else (i, node.index) for i in others]
    world.log(None, f"one-way cut {pairs}")
    _cut_pairs(world, rng, pairs)


def isolate(world: World, rng: Random) -> None:
    """One node is cut off from everybody."""
    node = _holder(world, rng)
    others = [i for i in range(len(world.nodes)) if i != node.index]
    world.log(node, "isolated")
    _cut_pairs(world, rng, [(node.index, i) for i in others] + [(i, node.index) for i in others])


def chain(world: World, rng: Random) -> None:
    """Key holders see each other only through members."""
    world.log(None, "key holders lose sight of each other")
    holders = [node.index for node in world.holders]
    _cut_pairs(world, rng, [(i, j) for i in holders for j in holders if i != j])


def weather(world: World, rng: Random) -> None:
    """Messages get lost, late and doubled."""
    loss, delay = rng.choice((0.1, 0.3, 0.6)), rng.choice((40, 800, 3_500))
    world.log(None, f"loss {loss} delay {delay}")
    world.net.set_weather(loss, rng.choice((0.0, 0.2)), delay)
    until = _later(world, rng, 10_000, 80_000)
    world.later(until, world.net.set_weather, 0.0, 0.0, 40)


def lock(world: World, rng: Random) -> None:
    """Somebody locks a key and unlocks it later."""
    node = _holder(world, rng)
    world.set_lock(node, locked=True)
    world.later(_later(world, rng, 5_000, 100_000), _unlock, world, node)


def _unlock(world: World, node: Node) -> None:
    world.set_lock(node, locked=False)


def wrong_clock(world: World, rng: Random) -> None:
    """A wall clock jumps: the node is not ready until somebody mends it, and nothing else."""
    node = rng.choice(world.holders)
    world.log(node, "wall clock jumps")
    node.unready = "clock"
    world.later(_later(world, rng, 5_000, 60_000), _mend_clock, node)


def _mend_clock(node: Node) -> None:
    node.unready = ""


def restore(world: World, rng: Random) -> None:
    """A disk is lost and an older copy put in its place."""
    node = _holder(world, rng)
    if node.destroyed:
        return
    if node.up:
        node.disk.standing = node.election.standing
    backup = node.disk.copy()
    world.later(_later(world, rng, 3_000, 90_000), _put_back, world, rng, node, backup)


def _put_back(world: World, rng: Random, node: Node, backup: Disk) -> None:
    world.restore(node, backup)
    world.later(_later(world, rng, 500, 40_000), world.restart, node, True)


def destroy(world: World, rng: Random) -> None:
    """A machine is lost for ever, if another key holder is left."""
    left = world.oracle.ending.survivors()
    if len(left) > 1:
        world.destroy(rng.choice(left))


def step_down(world: World, rng: Random) -> None:
    """An operator hands over, to a ready standby or to nobody."""
    serving = [node for node in world.holders if node.serving]
    if serving:
        node = rng.choice(serving)
        others = [other.host for other in world.holders if other is not node]
        node.begin_leaving(rng.choice([*others, ""]))


def call(world: World, rng: Random) -> None:
    """An operator at a standby asks for the role."""
    node = rng.choice(world.holders)
    if node.active:
        world.log(node, "is called")
        node.election.call(node.clock())


def crash_points(world: World, rng: Random) -> None:
    """For a while processes die between a decision and its durability, or right after it."""
    world.crash_odds = rng.choice((0.1, 0.4))
    world.later(_later(world, rng, 20_000, 100_000), _calm, world)


def _calm(world: World) -> None:
    world.crash_odds = 0.0


FAULTS: tuple[tuple[Fault, int], ...] = (
    (crash, 6),
    (pause, 6),
    (partition, 5),
    (one_way, 4),
    (isolate, 4),
    (chain, 3),
    (weather, 4),
    (lock, 4),
    (wrong_clock, 1),
    (restore, 2),
    (destroy, 1),
    (step_down, 3),
    (call, 2),
    (crash_points, 2),
)
"""What may happen, and how often against the others."""


def _plan(world: World, rng: Random, end: int, wanted: tuple[str, ...]) -> None:
    """Draw a few kinds of faults for this seed and spread them over its time."""
    chosen = [(fault, weight) for fault, weight in FAULTS if rng.random() < 0.5]
    if wanted:
        chosen = [(fault, weight) for fault, weight in FAULTS if fault.__name__ in wanted]
    chosen = chosen or [(crash, 1)]
    kinds, weights = [fault for fault, _ in chosen], [weight for _, weight in chosen]
    pace = rng.choice((8_000, 15_000, 30_000))
    at = world.net.now
    while at < end:
        at += rng.randrange(pace // 4, pace * 2)
        world.later(at, rng.choices(kinds, weights)[0], world, rng)
