"""The remote renewal process: `python -m workers.remote_renewal SETTINGS [--once]`."""

import sys
from contextlib import ExitStack, closing

from workers.process import run_worker
from workers.remote_renewal.loop import RemoteRenewalLoop


def main() -> int:
    """Run the loop, say goodbye to the CA, and return the exit status."""
    with ExitStack() as stack:
        return run_worker(
            lambda settings, paths: stack.enter_context(closing(RemoteRenewalLoop(settings, paths)))
        )


if __name__ == "__main__":
    sys.exit(main())
