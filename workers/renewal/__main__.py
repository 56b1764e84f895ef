"""`python -m workers.renewal SETTINGS`: one renewal process; see `trial` for `--test-hook`."""

import sys

from broker.runtime.main import FOREGROUND, run_process
from broker.runtime.privileges import HOOKS
from workers.process import run_worker
from workers.renewal.loop import RenewalLoop
from workers.renewal.trial import taken_name, try_hook


def main() -> int:
    """Run the loop, or try one hook, and return the exit status."""
    argv = sys.argv[1:]
    name = taken_name(argv)
    if name is None:
        return run_worker(RenewalLoop, HOOKS)
    # A person started it: it does not belong to a supervisor.
    return run_process(lambda settings, paths: try_hook(settings, paths, name), [*argv, FOREGROUND])


if __name__ == "__main__":
    sys.exit(main())
