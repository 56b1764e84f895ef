"""Everything that can break something here: one list for the schedule."""

import importlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from tests.faults.harness.injector import Injector

MODULES = ("signals", "sockets", "links", "clock", "disk", "failpoint")
"""Modules of this package; the clock's library is loaded before the disk's. Each has `INJECTORS`,
and `environment` if it works from inside."""
JOINED = frozenset({"PYTHONPATH", "LD_PRELOAD"})
"""Variables that several of them may want."""


def all_injectors() -> tuple[Injector, ...]:
    """Return the injectors of every module that is there, in a fixed order."""
    found = tuple(_injectors())
    names = [injector.name for injector in found]
    assert len(names) == len(set(names)), f"injectors share a name: {sorted(names)}"
    return found


def environment(directory: Path) -> dict[str, str]:
    """Return what the processes of one node need so that every injector gets at them.

    Args:
        directory: Of this node alone; it outlives its processes.
    """
    merged: dict[str, str] = {}
    for module in _modules():
        if not hasattr(module, "environment"):
            continue
        for name, text in module.environment(directory).items():
            before = merged.get(name, "").split(os.pathsep)
            more = [part for part in text.split(os.pathsep) if part not in before]
            kept = [part for part in before if part]
            merged[name] = os.pathsep.join([*kept, *more]) if name in JOINED else text
    return merged


def _injectors() -> Iterator[Injector]:
    for module in _modules():
        yield from getattr(module, "INJECTORS", ())


def _modules() -> Iterator[ModuleType]:
    for name in MODULES:
        place = f"{__package__}.{name}"
        if importlib.util.find_spec(place) is not None:
            yield importlib.import_module(place)
