"""What was measured: read from and written to `measured.json`, judged against its bound."""

import json
import os
import platform
import statistics
import subprocess
from pathlib import Path

import msgspec

from tests.reliability.marks import ROOT

MEASURED = Path(__file__).with_name("measured.json")


class Figure(msgspec.Struct, frozen=True):
    """One measurement: seconds, unless `unit` says otherwise; `bound` is for the median."""

    name: str
    what: str
    n: int
    median: float
    p99: float
    low: float
    high: float
    bound: float
    unit: str = "s"

    @property
    def holds(self) -> bool:
        """Whether the median is inside its bound."""
        return self.median <= self.bound


class Measured(msgspec.Struct, frozen=True):
    """All figures of a run, and what they were taken on."""

    hardware: str = ""
    commit: str = ""
    figures: tuple[Figure, ...] = ()

    def named(self, name: str) -> Figure | None:
        """Return one figure, None when it was never measured."""
        return next((figure for figure in self.figures if figure.name == name), None)


def figure(name: str, what: str, values: list[float], bound: float, unit: str = "s") -> Figure:
    """Return the figure of some values.

    Raises:
        ValueError: There is no value.
    """
    if not values:
        raise ValueError(f"nothing was measured for {name}")
    ordered = sorted(values)
    last = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
    spread = (ordered[0], ordered[-1])
    median = statistics.median(ordered)
    low, high = (round(value, 3) for value in spread)
    return Figure(name, what, len(values), round(median, 3), round(last, 3), low, high, bound, unit)


def read(path: Path = MEASURED) -> Measured:
    """Return the figures of the last run; none when nobody measured yet."""
    if not path.exists():
        return Measured()
    return msgspec.json.decode(path.read_bytes(), type=Measured)


def write(figures: tuple[Figure, ...], path: Path = MEASURED) -> None:
    """Keep the figures of a run; those of the same name are replaced, the others stay."""
    names = {one.name for one in figures}
    kept = tuple(one for one in read(path).figures if one.name not in names)
    told = Measured(_hardware(), _commit(), tuple(sorted((*kept, *figures), key=_by_name)))
    path.write_text(json.dumps(msgspec.to_builtins(told), indent=1) + "\n", encoding="utf-8")


def _by_name(one: Figure) -> str:
    return one.name


def _hardware() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    words = (f"{os.cpu_count()} x {model}", f"Linux {platform.release()}")
    return ", ".join((*words, f"Python {platform.python_version()}"))


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()
