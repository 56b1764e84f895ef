"""The heartbeat process: `python -m workers.heartbeat SETTINGS [--once]`."""

import sys

from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from workers.heartbeat.loop import HeartbeatLoop, deadline_ms
from workers.process import run_worker
from workers.sessions import opener


def build(settings: Settings, _paths: Paths) -> HeartbeatLoop:
    """Return the loop with real sessions."""
    return HeartbeatLoop(settings, opener(deadline_ms(settings.heartbeat.interval.ms) / 1000))


if __name__ == "__main__":
    sys.exit(run_worker(build))
