"""`python -m tests.faults --seeds 500 --minutes 30`: real meshes, broken from seeds.

The last line is `N passed, N failed`; the status is 1 when one failed. A seed says what is broken
and who works meanwhile (`--list` prints it); the timing of the operating system is not in it.
"""

import argparse
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from broker.clock import boottime_ms
from tests.faults.harness.lane import Lane, leave_in_order, play_all, say
from tests.faults.harness.report import figures_of
from tests.faults.harness.run import Verdict
from tests.faults.harness.schedule import BLOCK, Choice, draw
from tests.faults.injectors.catalogue import all_injectors

PORT = 30_000
PORTS_PER_LANE = 10


def main() -> int:
    """Play what the command line asks for."""
    leave_in_order()
    asked = _arguments().parse_args()
    first = asked.first if asked.seed is None else asked.seed
    seeds = range(first, first + (asked.seeds if asked.seed is None else 1))
    if asked.list:
        return _list(seeds, asked)
    verdicts = list(_run(seeds, asked))
    for line in figures_of(verdicts):
        say(line)
    failed = [verdict.plan.seed for verdict in verdicts if verdict.wrong]
    if failed:
        say("failed seeds: " + " ".join(map(str, sorted(failed))))
    say(f"{len(verdicts) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--minutes", type=float, default=0, help="begin none after so many")
    parser.add_argument("--lanes", type=int, default=1, help="meshes at the same time")
    parser.add_argument("--nodes", type=int, default=0, choices=range(4), help="of every mesh")
    parser.add_argument("--only", default="", help="injectors, with commas between")
    parser.add_argument("--patience", type=float, default=1.0, help="factor on every bound")
    parser.add_argument("--port", type=int, default=PORT, help="first port used")
    parser.add_argument("--keep", action="store_true", help="keep the homes of failed seeds")
    parser.add_argument("--list", action="store_true", help="print the schedules, break nothing")
    return parser


def _list(seeds: range, asked: argparse.Namespace) -> int:
    only = _only(asked)
    choices = [
        Choice(found.name, found.weight)
        for found in all_injectors()
        if not only or found.name in only
    ]
    for seed in seeds:
        for line in draw(seed, choices, asked.nodes).lines():
            say(line)
    return 0


def _run(seeds: range, asked: argparse.Namespace) -> Iterator[Verdict]:
    lanes = [_lane(number, asked) for number in range(max(1, asked.lanes))]
    shares: list[list[int]] = [[] for _ in lanes]
    for number, at in enumerate(range(0, len(seeds), BLOCK)):
        shares[number % len(lanes)] += seeds[at : at + BLOCK]
    if len(lanes) == 1:
        yield from lanes[0].play(shares[0], say)
        return
    with ProcessPoolExecutor(len(lanes), mp_context=get_context("spawn")) as pool:
        running = [pool.submit(play_all, *share) for share in zip(lanes, shares, strict=True)]
        for found in as_completed(running):
            yield from found.result()


def _lane(number: int, asked: argparse.Namespace) -> Lane:
    ends_ms = boottime_ms() + int(asked.minutes * 60_000) if asked.minutes else 0
    port = asked.port + number * PORTS_PER_LANE
    return Lane(port, ends_ms, asked.keep, asked.patience, asked.nodes, _only(asked))


def _only(asked: argparse.Namespace) -> tuple[str, ...]:
    return tuple(filter(None, asked.only.split(",")))


if __name__ == "__main__":
    raise SystemExit(main())
