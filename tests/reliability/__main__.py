"""`python -m tests.reliability`: write the page, measure the bounds, say which test shows what."""

import argparse
import sys

from tests.reliability.marks import by_mark, collect, strays
from tests.reliability.page import PAGE, filled, unshown


def main() -> int:
    """Do what the command line asks for; 1 when something is open or a bound was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md")
    parser.add_argument("--measure", action="store_true", help="measure the bounds, then write")
    parser.add_argument("--times", type=int, default=20, help="how often each program is killed")
    parser.add_argument("--only", default="", help="measure the figures that begin with this")
    parser.add_argument("--open", action="store_true", help="list rows and promises without a test")
    parser.add_argument("--show", metavar="MARK", help='tests of a mark: "row 14", "P12"')
    asked = parser.parse_args()
    if asked.open:
        return _say([*unshown(), *(f"a mark nobody counts: {path}" for path in strays())])
    if asked.show:
        tests = by_mark(collect()).get(asked.show, ())
        _say(list(tests))
        return 0 if tests else 1
    missed: list[str] = []
    if asked.measure:
        # Imported here: it needs the benchmarks, which the other orders do not.
        from tests.reliability.measure import measure_all  # noqa: PLC0415

        missed = measure_all(asked.times, asked.only)
    if asked.write or asked.measure:
        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return _say(missed)


def _say(lines: list[str]) -> int:
    for line in lines:
        sys.stdout.write(line + "\n")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
