"""The roster-sync process: `python -m workers.roster_sync SETTINGS [--once]`."""

import sys

from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.node import Membership
from workers.peer import PeerSession
from workers.process import run_worker
from workers.roster_sync.loop import DEADLINE_MS, RosterSyncLoop


def build(settings: Settings, _paths: Paths) -> RosterSyncLoop:
    """Return the loop with real sessions."""

    def open_session(paths: Paths, membership: Membership) -> PeerSession:
        return PeerSession(paths, membership, timeout_s=DEADLINE_MS / 1000)

    return RosterSyncLoop(settings, open_session)


if __name__ == "__main__":
    sys.exit(run_worker(build))
