"""Many seeds on several processes, and what they found."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tests.sim.chaos import EVERYTHING, Focus, play
from tests.sim.mutants import MEASURED, MUTANTS, SAFETY, SECOND_LINES, worn

BLOCK = 50
TAIL_LINES = 40
CLEAN = "clean"
WHOLE = " whole"


@dataclass
class Found:
    """What a block of seeds came to."""

    seeds: int = 0
    double_ms: int = 0
    chaos_ms: int = 0
    virtual_ms: int = 0
    objections: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: "Found") -> None:
        """Count another block."""
        self.seeds += other.seeds
        self.double_ms += other.double_ms
        self.chaos_ms += other.chaos_ms
        self.virtual_ms += other.virtual_ms
        self.objections += other.objections

    @property
    def share(self) -> float:
        """The part of the chaos with two serving primaries, in percent."""
        return 100 * self.double_ms / max(1, self.chaos_ms)


def run_block(name: str, seeds: range) -> Found:
    """Play seeds one after the other, under a mutant if one is named.

    `NAME whole` is what a mutant is compared with: its kinds of faults, and all rules.
    """
    mutant = MUTANTS.get(name.removesuffix(WHOLE))
    focus = mutant.focus if mutant else EVERYTHING
    found = Found()
    with worn(None if name.endswith(WHOLE) else mutant):
        for seed in seeds:
            found.add(_run_one(seed, focus))
    return found


def _run_one(seed: int, focus: Focus) -> Found:
    try:
        world = play(seed, focus)
    except Exception as error:  # noqa: BLE001 (whatever breaks, the seed is worth knowing)
        notes = "\n".join(getattr(error, "__notes__", ()))
        text = f"{type(error).__name__}: {error}\n{notes}"
        return Found(seeds=1, objections=[(seed, text)])
    share = world.share
    return Found(1, share.double_ms, share.total_ms, world.net.now)


class Campaign:
    """Processes that play seeds; with one job this process does it itself."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))

    def run(self, seeds: range, name: str = "") -> Found:
        """Play all seeds, under a mutant if one is named."""
        blocks = [seeds[at : at + BLOCK] for at in range(0, len(seeds), BLOCK)]
        play_block = partial(run_block, name)
        played = map(play_block, blocks) if self.jobs == 1 else self._pool.map(play_block, blocks)
        total = Found()
        for found in played:
            total.add(found)
        total.objections.sort()
        return total

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown()


def report(campaign: Campaign, seeds: range, name: str) -> Iterator[str]:
    """Play seeds and yield what to print; the last line says `clean` if nobody objected."""
    began = time.perf_counter()
    found = campaign.run(seeds, name)
    took_s = time.perf_counter() - began
    yield f"commit {commit()}, seeds {seeds.start} to {seeds.stop - 1}"
    rate, minutes = found.seeds / took_s, found.virtual_ms / max(1, found.seeds) / 60_000
    yield f"{rate:.0f} seeds a second with {campaign.jobs} jobs, {minutes:.1f} virtual minutes each"
    yield f"two primaries serve in {found.share:.2f} % of the chaos"
    if found.objections:
        seed, text = found.objections[0]
        kept = text.splitlines()
        yield f"seed {seed}: {kept[0]}"
        yield from kept[1:][-TAIL_LINES:]
        yield "every such seed: " + " ".join(str(seed) for seed, _ in found.objections[:50])
    yield f"{len(found.objections)} objections" if found.objections else CLEAN


def mutation_table(campaign: Campaign, seeds: range) -> Iterator[str]:
    """Yield who objects to which missing rule; the last line says `clean` if each is missed."""
    complete = True
    yield f"{'rule taken out':20} {'first seed':>10} {'object':>8}"
    for mutant in (*SAFETY, *SECOND_LINES):
        found = campaign.run(seeds, mutant.name)
        share = 100 * len(found.objections) / found.seeds
        first = str(found.objections[0][0]) if found.objections else "-"
        complete &= bool(found.objections) or mutant in SECOND_LINES
        yield f"{mutant.name:20} {first:>10} {share:7.1f}%  {mutant.rule}"
    yield f"{'two primaries':20} {'with':>9} {'without':>9}"
    for mutant in MEASURED:
        whole = campaign.run(seeds, mutant.name + WHOLE)
        found = campaign.run(seeds, mutant.name)
        complete &= found.share > whole.share
        yield f"{mutant.name:20} {whole.share:8.2f}% {found.share:8.2f}%  {mutant.rule}"
    yield CLEAN if complete else "some rule is not missed: more seeds, or a better oracle"


def commit() -> str:
    """Return the commit of this tree, as far as there is one."""
    done = subprocess.run(
        ("git", "rev-parse", "--short", "HEAD"),
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
