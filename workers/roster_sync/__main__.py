"""The roster-sync process: `python -m workers.roster_sync SETTINGS [--once]`."""

import sys

from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from workers.process import run_worker
from workers.roster_sync.loop import RosterSyncLoop
from workers.roster_sync.trips import SHORT_MS
from workers.sessions import opener


def build(settings: Settings, _paths: Paths) -> RosterSyncLoop:
    """Return the loop with real sessions."""
    return RosterSyncLoop(settings, opener(SHORT_MS / 1000))


if __name__ == "__main__":
    sys.exit(run_worker(build))
