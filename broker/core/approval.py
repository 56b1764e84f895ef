"""Requests that wait for a person: how many may, and in which order people see them.

Invariants: one source never holds more than its share, and a flood from a few sources neither
fills the last places nor stands before the requests of others.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from broker.core.limiter import source_key
from broker.errors import BusyError, ThrottledError

PENDING_MAX = 256
"""Requests that may wait for a person; more are refused until somebody decided."""
PENDING_OF_ONE_MAX = 8
"""Of these from one source: a room full of machines behind one address, not a flood."""
RESERVED = 64
"""The last places, for sources that have nothing waiting yet."""
RETRY_MS = 30_000
HINT = "certmesh approval list on the CA"

T = TypeVar("T")


def check_room(waiting: Sequence[tuple[str, str]], source: str, host: str) -> None:
    """Let one more request wait.

    Args:
        waiting: Source and host of every request that waits already.
        source: Where the new one comes from.
        host: Which name it is for.

    Raises:
        BusyError: No place is left for it; it may come again.
        ThrottledError: This source has its share already, or waits for this very name.
    """
    own = [name for other, name in waiting if source_key(other) == source_key(source)]
    if host in own:
        raise ThrottledError(
            f"a request for {host} from this address waits already",
            hint=HINT,
            retry_after_ms=RETRY_MS,
        )
    if len(own) >= PENDING_OF_ONE_MAX:
        raise ThrottledError(
            f"{len(own)} requests from this address wait already",
            hint=HINT,
            retry_after_ms=RETRY_MS,
        )
    if len(waiting) >= (PENDING_MAX - RESERVED if own else PENDING_MAX):
        raise BusyError("too many requests wait for approval", hint=HINT, retry_after_ms=RETRY_MS)


def in_turns(rows: Iterable[T], source_of: Callable[[T], str]) -> list[T]:
    """Return the oldest request of every source, then everybody's second, and so on.

    Args:
        rows: Requests, oldest first.
        source_of: Gives a request's source address.
    """
    seen: Counter[str] = Counter()
    turns: list[tuple[int, T]] = []
    for row in rows:
        key = source_key(source_of(row))
        turns.append((seen[key], row))
        seen[key] += 1
    return [row for _, row in sorted(turns, key=lambda turn: turn[0])]
