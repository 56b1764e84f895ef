"""`python -m workers.enroll SETTINGS`: join a mesh; the order comes on standard input."""

import sys

from broker.runtime.main import run_process
from workers.enroll.screen import enroll


def main() -> int:
    """Join and return the exit status."""
    return run_process(enroll)


if __name__ == "__main__":
    sys.exit(main())
