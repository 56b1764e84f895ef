"""`python -m workers.notify SETTINGS`: the process that tells people."""

import sys

from workers.notify.loop import NotifyLoop
from workers.process import run_worker


def main() -> int:
    """Run the loop and return the exit status."""
    return run_worker(NotifyLoop)


if __name__ == "__main__":
    sys.exit(main())
