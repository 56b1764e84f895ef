"""The approval process: `python -m workers.approval SETTINGS [--once] [--decider NAME]`."""

import os
import sys

from broker.runtime.exits import Exit
from broker.runtime.logs import setup_logs
from broker.runtime.main import run_process, wants_once
from broker.runtime.paths import Paths
from broker.runtime.privileges import Needs
from broker.runtime.settings import Settings
from workers.approval.choice import make_decider, split_arguments
from workers.approval.loop import ApprovalLoop
from workers.process import run_loop

NEEDS = Needs(places=("approval.webhook_secret_file", "approval.webhook_ca_file"))


def main() -> int:
    """Run the process and return its exit status."""
    try:
        named, rest = split_arguments(sys.argv[1:])
    except ValueError as error:
        sys.stderr.write(f"certmesh: {error}\n")
        return Exit.USAGE
    if named:  # started by a person, next to the one of the process table
        os.environ["SUPERVISOR_PROCESS_NAME"] = f"approval-{named}-{os.getpid()}"

    def process(settings: Settings, paths: Paths) -> int:
        setup_logs(settings, ApprovalLoop.service.value)
        name = named or settings.approval.decider
        loop = ApprovalLoop(make_decider(name, settings.approval, paths.home))
        return run_loop(loop, settings, paths, once=wants_once(rest))

    return run_process(process, rest, NEEDS)


if __name__ == "__main__":
    sys.exit(main())
