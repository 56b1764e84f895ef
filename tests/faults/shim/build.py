"""Libraries that get between a process and its libc, compiled when a test first wants them.

How to use one, for example the clock:

    with tempfile.TemporaryDirectory() as place:      # outlives the processes
        clock = Clock(Path(place))                    # compiles; raises NoCompilerError without cc
        pool = Pool.create(port, environment=clock.environment())
        clock.set(3600 * 1000)                        # now every process of the pool is an hour on

Several libraries go together with `merged(clock.environment(), disk.environment())`. Tests that
need a compiler start with `needs_compiler`.
"""

import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMPILER = shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler (cc) here")


class NoCompilerError(RuntimeError):
    """There is no `cc` on this machine."""


def compiled(name: str, place: Path) -> Path:
    """Return the library made from `name`.c, in `place`.

    Raises:
        NoCompilerError: No `cc` on the path.
    """
    if COMPILER is None:
        raise NoCompilerError("no C compiler (cc) here")
    library = place / f"{name}.so"
    if not library.exists():
        flags = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
        source = str(HERE / f"{name}.c")
        subprocess.run([COMPILER, *flags, "-o", str(library), source, "-ldl"], check=True)
    return library


def merged(*environments: Mapping[str, str]) -> dict[str, str]:
    """Return one environment of several: lists of paths are joined, other names must differ."""
    whole: dict[str, str] = {}
    for environment in environments:
        for name, value in environment.items():
            if name in {"LD_PRELOAD", "PYTHONPATH"} and name in whole:
                whole[name] = f"{whole[name]}:{value}"
            else:
                whole[name] = value
    return whole


class Clock:
    """The wall clock of every process that has `environment()`, moved by one offset."""

    def __init__(self, place: Path) -> None:
        self._library = compiled("clock", place)
        self._file = place / "clock.offset"
        self.set(0)

    def environment(self) -> dict[str, str]:
        """Return what processes need to follow this clock."""
        return {"LD_PRELOAD": str(self._library), "CERTMESH_SHIM_CLOCK": str(self._file)}

    def set(self, offset_ms: int) -> None:
        """Move the clock, at once and for running processes too; 0 is the right time."""
        mode = "r+b" if self._file.exists() else "wb"
        with self._file.open(mode) as file:
            file.write(struct.pack("=q", offset_ms))
