"""What a fuzz target is, and what it may cost: a refusal that is typed, quick and small.

A target takes octets as a peer, a file or a person would bring them and ends in nothing or in one
of its refusals. Everything else is a fault of ours: a crash, a foreign exception, more than
`CPU_MS_MAX` of one core, more than `PEAK_BYTES_MAX` of memory.
"""

import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from broker.errors import MeshError

Form = Literal["bytes", "text", "json", "msgpack", "http"]

CPU_MS_MAX = 50
PEAK_BYTES_MAX = 16 * 1024 * 1024
TRIES = 4
"""The first call imports and fills caches, and a collection of garbage may fall into any call."""

NEVER = (RecursionError, MemoryError, AssertionError, UnicodeError, OverflowError)
"""No refusal, also where a target documents the `ValueError` that some of them are."""


@dataclass(frozen=True, slots=True)
class Target:
    """One way in.

    Attributes:
        name: What it is called on the command line and in `corpus/`.
        run: Takes the octets.
        seeds: Valid examples, from which the hostile ones are bred.
        form: How the octets are built, so that edits can be made inside.
        refusals: What it may raise.
        bytes_max: More than that the way in does not let through, or nobody sends.
        cpu_ms_max: Its own bound where a way in has to do real work.
    """

    name: str
    run: Callable[[bytes], object]
    seeds: Callable[[], tuple[bytes, ...]]
    form: Form = "bytes"
    refusals: tuple[type[Exception], ...] = (MeshError,)
    bytes_max: int = 1_048_576
    cpu_ms_max: int = CPU_MS_MAX


def attempt(target: Target, octets: bytes, *, slower: int = 1) -> None:
    """Feed the target; whatever is no refusal goes through to the caller.

    Args:
        target: The way in.
        octets: What comes in.
        slower: By how much the code is slowed down by whoever watches it.

    Raises:
        AssertionError: It took too long, each time.
    """
    cpu_ms_max = target.cpu_ms_max * slower
    spent: list[float] = []
    while not spent or (len(spent) < TRIES and spent[-1] > cpu_ms_max):
        began = time.thread_time_ns()
        _feed(target, octets)
        spent.append((time.thread_time_ns() - began) / 1e6)
    assert min(spent) <= cpu_ms_max, f"{target.name}: {min(spent):.0f} ms of CPU"


def peak_bytes(target: Target, octets: bytes) -> int:
    """Return the most memory that the target held at a time because of these octets."""
    tracemalloc.start()
    try:
        _feed(target, octets)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _feed(target: Target, octets: bytes) -> None:
    try:
        target.run(octets)
    except Exception as error:
        if isinstance(error, target.refusals) and not isinstance(error, NEVER):
            return
        error.add_note(f"target {target.name}, {len(octets)} octets, hex: {octets[:4096].hex()}")
        raise
