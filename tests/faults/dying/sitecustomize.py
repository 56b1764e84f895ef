"""Gets into a process from outside (PYTHONPATH) and ends it as a bug would.

The directory in `DYING_DIRECTORY` has files named as supervisord calls the victims. `NAME` holds
the seconds that a process may live once it has read its settings; `NAME.hog` the MiB of address
space that it may have: it asks for more, once. Without a file a process is left alone, so that
removing the file heals.
"""

import os
import resource
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

_BEGINS = "certmesh.toml"
_MIB = 1024 * 1024


def _victim() -> Path | None:
    directory = os.environ.get("DYING_DIRECTORY", "")
    name = os.environ.get("SUPERVISOR_PROCESS_NAME", "")
    return Path(directory) / name if directory and name else None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except OSError:
        return None


def _after_settings(harm: Callable[[], None]) -> None:
    begun: list[bool] = []

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and not begun and str(arguments[0]).endswith(_BEGINS):
            begun.append(True)
            harm()

    sys.addaudithook(watch)


def _hog(limit_bytes: int) -> None:
    """Ask for more than the kernel gives: the MemoryError is a real one, in the main thread."""
    resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
    bytearray(limit_bytes)


def _infect() -> None:
    victim = _victim()
    if victim is None:
        return
    life_s = _number(victim)
    if life_s is not None:
        timer = threading.Timer(life_s, os._exit, (1,))
        timer.daemon = True
        _after_settings(timer.start)
    hog = victim.with_name(f"{victim.name}.hog")
    limit = _number(hog)
    if limit is not None:
        hog.unlink()
        _after_settings(partial(_hog, int(limit) * _MIB))


_infect()
