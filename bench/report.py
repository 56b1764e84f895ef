"""Results, their table and `bench/out/latest.json`."""

import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

OUT = Path("bench/out/latest.json")


class Result(msgspec.Struct, frozen=True):
    """One named figure: median of `runs`, spread as (lowest, highest)."""

    name: str
    value: float
    unit: str
    better: str
    target: float | None
    runs: int
    spread: tuple[float, float]
    note: str = ""


class Report(msgspec.Struct, frozen=True):
    """The whole file."""

    schema: str
    commit: str
    machine: dict[str, object]
    results: list[Result]


def result(  # noqa: PLR0913 (a row of the table)
    name: str,
    values: Sequence[float],
    *,
    unit: str,
    better: str,
    target: float | None = None,
    note: str = "",
) -> Result:
    """Return the median of `values` with its spread."""
    return Result(
        name,
        round(statistics.median(values), 4),
        unit,
        better,
        target,
        len(values),
        (round(min(values), 4), round(max(values), 4)),
        note,
    )


def is_met(row: Result) -> bool | None:
    """Whether the target is met, None without a target."""
    if row.target is None:
        return None
    return row.value <= row.target if row.better == "lower" else row.value >= row.target


def table(rows: Sequence[Result]) -> str:
    """Return the results as aligned text."""
    lines = [f"{'name':34} {'median':>12} {'unit':6} {'target':>9}  {'met':4} spread"]
    for row in rows:
        bound = (
            "-" if row.target is None else f"{'<=' if row.better == 'lower' else '>='}{row.target}"
        )
        met = {None: "-", True: "yes", False: "NO"}[is_met(row)]
        spread = f"{row.spread[0]:g} .. {row.spread[1]:g} ({row.runs})"
        lines.append(
            f"{row.name:34} {row.value:12g} {row.unit:6} {bound:>9}  {met:4} {spread}"
            + (f"  {row.note}" if row.note else "")
        )
    return "\n".join(lines)


def write(rows: Sequence[Result]) -> Path:
    """Write the report and return where it is."""
    OUT.parent.mkdir(parents=True, exist_ok=True)
    report = Report("certmesh.bench/1", _commit(), _machine(), list(rows))
    OUT.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2))
    return OUT


def _commit() -> str:
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or "unknown"


def _machine() -> dict[str, object]:
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
