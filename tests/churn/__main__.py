"""`python -m tests.churn --hours 24`: a day of comings and goings, and what is left of it."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.churn.day import Day, Mark
from tests.churn.verdict import leaks, left_over, unknown_tables
from tests.shell.mesh_room import pushed_clock

MARKS = 4
LATE_RSS_SHARE = 0.25
"""The caches of three ledgers fill while the journals grow: 8 MiB each, then no more."""


def main() -> int:
    """Play the hours; 1 when something grew that should not."""
    parser = argparse.ArgumentParser(prog="python -m tests.churn", description=__doc__)
    parser.add_argument("--hours", type=float, default=24.0, help="simulated hours")
    parser.add_argument("--marks", type=int, default=MARKS, help="how often everything is counted")
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="cmc-", dir="/tmp") as home,
        pushed_clock() as clock,
    ):
        day = Day.open(Path(home), clock)
        day.run(asked.hours, asked.marks, _say)
        quiet = day.quiet_day()
        day.close()
    _say(quiet)
    first, last = day.marks[0], day.marks[-2]
    faults = [
        f"{path}: {before} -> {after}" for path, (before, after) in leaks(first, last).items()
    ]
    faults += [f"{path}: {size} a day later" for path, size in left_over(quiet, day.live).items()]
    faults += [f"table without a bound: {table}" for table in unknown_tables(last)]
    half, end = day.marks[len(day.marks) // 2 - 1], last
    if end.resident_kb > half.resident_kb * (1 + LATE_RSS_SHARE):
        faults.append(f"resident memory: {half.resident_kb} -> {end.resident_kb} kB")
    _write(f"done: {dict(day.crowd.done)}", f"refused: {dict(day.crowd.refused)}", *faults)
    _write(f"journal: {day.bytes_per_row():.0f} bytes of file for each row")
    _write(f"{asked.hours:g} hours, {len(faults)} leaks")
    return 1 if faults else 0


def _say(mark: Mark) -> None:
    counted = f"{sum(mark.tables.values())} entries, {mark.blocks} blocks, {mark.resident_kb} kB"
    things = (
        f"{mark.descriptors} descriptors, {mark.threads} threads, {sum(mark.files.values())} files"
    )
    _write(f"hour {mark.hour:5.1f}: {counted}, {things}, ledgers {mark.journal_bytes} bytes")


def _write(*lines: str) -> None:
    sys.stdout.write("".join(line + "\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
