"""What a process holds, counted without knowing it: containers, caches, rows, descriptors, files.

A table that somebody adds tomorrow is counted as well: the walk follows every attribute of every
object of ours, and every module's own containers.
"""

import ctypes
import functools
import gc
import os
import sqlite3
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

OURS = ("broker", "workers")
_SIZED = (dict, list, set, frozenset, tuple, deque)
_DEEPEST = 14
_CACHE = type(functools.lru_cache(lambda: None))


@dataclass
class Census:
    """Sizes by path; a path names attributes, `[]` stands for the elements of a container."""

    sizes: dict[str, int] = field(default_factory=dict)
    _seen: set[int] = field(default_factory=set)
    _kept: list[object] = field(default_factory=list)

    def of(self, thing: object, path: str, depth: int = 0) -> "Census":
        """Count everything that can be reached from an object of ours."""
        if depth > _DEEPEST or id(thing) in self._seen:
            return self
        if not isinstance(thing, _SIZED) and not _is_ours(thing):
            return self
        self._seen.add(id(thing))
        self._kept.append(thing)  # an id is unique only while its object lives
        if isinstance(thing, _SIZED):
            self.sizes[path] = self.sizes.get(path, 0) + len(thing)
            for element in _elements(thing):
                self.of(element, f"{path}[]", depth + 1)
            return self
        for name, value in _attributes(thing):
            self.of(value, f"{path}.{name}", depth + 1)
        return self

    def of_modules(self) -> "Census":
        """Count what modules of ours keep for themselves, and what their caches hold."""
        for name, module in sorted(sys.modules.items()):
            if name.partition(".")[0] in OURS:
                for key, value in list(vars(module).items()):
                    self._of_global(f"{name}:{key}", value)
        return self

    def _of_global(self, path: str, value: object) -> None:
        if isinstance(value, _CACHE):
            self.sizes[path] = value.cache_info().currsize
        elif isinstance(value, (dict, list, set, deque)):
            self.sizes[path] = len(value)
        elif _is_ours(value) and not isinstance(value, type):
            self.of(value, path)


def rows_of(file: Path) -> dict[str, int]:
    """Return the number of rows of every table of a ledger, read beside its owner."""
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
        names = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        counted = {
            name: int(connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0])  # noqa: S608 (names of our own schema)
            for (name,) in names
        }
    connection.close()
    return counted


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def threads() -> int:
    """Return how many threads run."""
    return threading.active_count()


def files(home: Path) -> dict[str, int]:
    """Return the number of files in every directory below a home."""
    return {
        str(Path(where).relative_to(home)): len(names) for where, _, names in os.walk(home) if names
    }


def blocks() -> int:
    """Return how many blocks of memory Python's allocator has handed out, rubbish collected."""
    gc.collect()
    return sys.getallocatedblocks()


def resident_kb() -> int:
    """Return the resident memory of this process, what it could give back given back."""
    ctypes.CDLL(None).malloc_trim(0)
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise OSError("no VmRSS in /proc/self/status")


def grown(
    first: dict[str, int], last: dict[str, int], *, share: float, slack: int
) -> dict[str, tuple[int, int]]:
    """Return what is larger now by more than a share of itself and a few."""
    return {
        path: (first.get(path, 0), size)
        for path, size in last.items()
        if size > first.get(path, 0) * (1 + share) + slack
    }


def _is_ours(thing: object) -> bool:
    return type(thing).__module__.partition(".")[0] in OURS


def _elements(thing: Any) -> Iterable[object]:
    return [*thing.keys(), *thing.values()] if isinstance(thing, dict) else list(thing)


def _attributes(thing: object) -> Iterator[tuple[str, object]]:
    names: list[str] = list(getattr(thing, "__dict__", {}))
    if isinstance(thing, msgspec.Struct):
        names.extend(thing.__struct_fields__)
    for kind in type(thing).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        names.extend((slots,) if isinstance(slots, str) else slots)
    for name in dict.fromkeys(names):
        if not name.startswith("__"):
            yield name, getattr(thing, name, None)
