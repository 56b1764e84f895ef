"""The heartbeat process: `python -m workers.heartbeat SETTINGS [--once]`."""

import sys

from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.node import Membership
from workers.heartbeat.loop import HeartbeatLoop, deadline_ms
from workers.peer import PeerSession
from workers.process import run_worker


def build(settings: Settings, _paths: Paths) -> HeartbeatLoop:
    """Return the loop with real sessions."""
    timeout_s = deadline_ms(settings.heartbeat.interval.ms) / 1000

    def open_session(paths: Paths, membership: Membership) -> PeerSession:
        return PeerSession(paths, membership, timeout_s=timeout_s)

    return HeartbeatLoop(settings, open_session)


if __name__ == "__main__":
    sys.exit(run_worker(build))
