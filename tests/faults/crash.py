"""A broker under load, killed again and again: `python -m tests.faults.crash --kills 500 --seed 7`.

Half of the deaths come at a random moment, the others at a named point. After each one the disk is
compared with every answer that was given (`tests.faults.promises`), then the next broker has to
take up what was not answered.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Self

from broker.clock import boottime_ms
from broker.wire.ids import Service
from tests.faults.injectors.failpoint import POINTS
from tests.faults.lone import PATIENCE_S, BrokerDiedError, Caller, Home, Nursery
from tests.faults.promises import Book, Promise

WINDOW = 8
"""Requests under way at once: a drain then holds several of them."""
LIFE_MS_MAX = 60
ARMED_MS_MAX = 500
KILLS_PER_HOME = 25
NTH_MAX = 6
QUIET = {"begin", "tick"}
"""Points that a busy broker passes rarely: the first time is deadly."""
BEGINNING = {"write-new", "sync-names", "write-atomic"}
"""Points that a broker passes while it starts."""


@dataclass
class Toll:
    """What a campaign did."""

    deaths: Counter[str] = field(default_factory=Counter)
    recovery_ms: list[int] = field(default_factory=list)
    kept: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Lab:
    """Where a campaign takes place.

    Attributes:
        nursery: Has the brokers.
        below: Where homes are made; None for the temporary directory.
        after_death: Does more harm to a home whose broker is dead, such as a power cut.
        arm: Makes the broker of a home die at a point of one request; None for failpoints.
    """

    nursery: Nursery
    below: Path | None = None
    after_death: Callable[[Home], object] = lambda _home: None
    arm: Callable[[Home, str], object] | None = None


def campaign(kills: int, seed: int, lab: Lab) -> Toll:
    """Kill a broker `kills` times; a campaign ends early with the first broken promise."""
    chance, toll = Random(seed), Toll()
    points = [point for point in POINTS if point.partition(".")[0] != "job"]
    chance.shuffle(points)
    for first in range(0, kills, KILLS_PER_HOME):
        wishes = [
            points[number // 2 % len(points)] if number % 2 else "any"
            for number in range(first, min(kills, first + KILLS_PER_HOME))
        ]
        _one_home(lab, wishes, chance, toll)
        if toll.broken:
            break
    return toll


def _one_home(lab: Lab, wishes: list[str], chance: Random, toll: Toll) -> None:
    home, book, nursery = Home.create(lab.below), Book(chance), lab.nursery
    try:
        for wish in wishes:
            toll.deaths[_one_life(home, nursery, book, (wish, toll))] += 1
            lab.after_death(home)
            with home.ledger_copy() as ledger:
                book.check(ledger)
            if book.broken:
                return
        _last_life(home, nursery, book)
    finally:
        toll.kept += len(book.kept)
        toll.refused += book.refused
        toll.broken += [f"{sentence}\n{home.log()[-4000:]}" for sentence in book.broken[:5]]
        home.remove()


def _one_life(home: Home, nursery: Nursery, book: Book, order: tuple[str, Toll]) -> str:
    """Return what the broker died of."""
    wish, toll = order
    name = wish.partition(".")[0]
    if name in BEGINNING:
        nursery.arm(wish)
    started_ms = boottime_ms()
    nursery.start(home)
    try:
        with Load(home, nursery, book) as load:
            toll.recovery_ms.append(boottime_ms() - started_ms)
            if wish == "any" or name in BEGINNING:
                load.run(book.chance.randint(1, LIFE_MS_MAX))
            else:
                nursery.arm(wish, 1 if name in QUIET else book.chance.randint(1, NTH_MAX))
                load.run(ARMED_MS_MAX)
    except BrokerDiedError:
        pass
    nursery.disarm()
    by_itself = nursery.is_over()
    status = nursery.kill()
    if status != -9:
        book.broken.append(f"the broker ended by itself with status {status}")
    return wish if by_itself else "any"


def _last_life(home: Home, nursery: Nursery, book: Book) -> None:
    """Whatever was ever asked has one answer in the end."""
    nursery.start(home)
    with Load(home, nursery, book) as load:
        load.settle()
    if nursery.stop() != 0:
        book.broken.append("the broker did not stop in peace")
    with home.ledger_copy() as ledger:
        book.check(ledger, all_of_them=True)


class Load:
    """Requests at a broker, a window of them at a time; first what earlier lives left open."""

    def __init__(self, home: Home, nursery: Nursery, book: Book) -> None:
        self._book, self._nursery = book, nursery
        self._left = [*book.open.values()]
        self._stack = ExitStack()
        self._callers = {
            service: self._stack.enter_context(Caller(home, nursery, service))
            for service in (Service.CONSOLE, Service.GATEWAY)
        }
        self._under_way: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_trouble: object) -> None:
        for _ in self._callers:
            self._collect(0)  # what came before the end counts
        self._stack.close()

    def run(self, for_ms: int) -> None:
        """Ask until the time is over or the broker is; raises `BrokerDiedError`."""
        until_ms = boottime_ms() + for_ms
        while boottime_ms() < until_ms:
            while len(self._under_way) < WINDOW:
                self._post(self._left.pop(0) if self._left else self._book.draw())
            self._collect(2)
            if self._nursery.is_over():
                raise BrokerDiedError

    def settle(self) -> None:
        """Ask what is open until everything is answered."""
        until_ms = boottime_ms() + PATIENCE_S * 1000
        while self._book.open and boottime_ms() < until_ms:
            while self._left and len(self._under_way) < WINDOW:
                self._post(self._left.pop(0))
            self._collect(2)
        if self._book.open:
            self._book.broken.append(f"never answered: {[*self._book.open.values()]}")

    def _post(self, promise: Promise) -> None:
        self._callers[promise.service].post(promise.request_id, promise.request)
        self._under_way.add(promise.request_id)

    def _collect(self, wait_ms: int) -> None:
        for caller in self._callers.values():
            for answer in caller.collect(wait_ms):
                self._under_way.discard(answer.request_id)
                self._book.note(answer)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a campaign and print what it found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.crash")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(argv)
    with Nursery() as nursery:
        toll = campaign(given.kills, given.seed, Lab(nursery))
    for point, count in sorted(toll.deaths.items()):
        sys.stdout.write(f"{count:6} deaths at {point}\n")
    times = sorted(toll.recovery_ms)
    sys.stdout.write(
        f"{sum(toll.deaths.values())} kills, {toll.kept} promises kept, "
        f"refused {dict(toll.refused)}, "
        f"serving again p50 {times[len(times) // 2]} ms, max {times[-1]} ms (forked)\n"
    )
    for sentence in toll.broken:
        sys.stdout.write(f"BROKEN (seed {given.seed}): {sentence}\n")
    return 1 if toll.broken else 0


if __name__ == "__main__":
    sys.exit(main())
