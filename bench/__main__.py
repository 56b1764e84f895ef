"""`python -m bench [NAME ...]`: run the measurements, print the table, write the file."""

import sys

from bench import due, failover, issuing, pool, refusals, renewing, round_trip, sweep
from bench.report import Result, table, write

PARTS = {
    "round_trip": round_trip.measure,
    "issuing": issuing.measure,
    "refusals": refusals.measure,
    "pool": pool.measure,
    "failover": failover.measure,
    "renewing": renewing.measure,
    "due": due.measure,
    "sweep": sweep.measure,
}


def main(names: list[str]) -> int:
    """Measure the named parts, all of them by default."""
    unknown = set(names) - set(PARTS)
    if unknown:
        sys.stderr.write(f"unknown: {', '.join(unknown)}; there are {', '.join(PARTS)}\n")
        return 2
    rows: list[Result] = []
    for name in names or PARTS:
        sys.stderr.write(f"measuring {name} ...\n")
        rows.extend(PARTS[name]())
    print(table(rows))
    print(f"written to {write(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
