"""`python -m tests.sim --seeds 10000`: whole meshes from many seeds, or the table of mutants."""

import argparse
import sys

from tests.sim.campaign import CLEAN, Campaign, mutation_table, report
from tests.sim.mutants import MUTANTS


def main() -> int:
    """Play what the command line asks for; 1 when an invariant did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="without this rule")
    parser.add_argument("--mutants", action="store_true", help="without each rule in turn")
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.seeds)
    campaign, line = Campaign(asked.jobs), ""
    lines = (
        mutation_table(campaign, seeds) if asked.mutants else report(campaign, seeds, asked.mutant)
    )
    for line in lines:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    campaign.close()
    return 0 if line == CLEAN else 1


if __name__ == "__main__":
    raise SystemExit(main())
