"""The failover process: `python -m workers.failover SETTINGS [--once]`."""

import sys
from functools import partial

from broker.runtime.logs import setup_logs
from broker.runtime.main import run_process, wants_once
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.node import Membership
from workers.failover.air import ZeroconfAir
from workers.failover.loop import FailoverLoop, deadline_ms
from workers.failover.radio import Radio
from workers.peer import PeerSession
from workers.process import run_loop


def main(settings: Settings, paths: Paths) -> int:
    """Run the loop; at the end the announcement is withdrawn, with goodbyes."""
    setup_logs(settings, FailoverLoop.service.value)
    timeout_s = deadline_ms(settings.failover.tick.ms) / 1000

    def open_session(paths: Paths, membership: Membership) -> PeerSession:
        return PeerSession(paths, membership, timeout_s=timeout_s)

    open_air = partial(ZeroconfAir, settings.discovery)
    lease_ms = settings.broker.worker_dead_after.ms
    with Radio(open_air, lease_ms) as radio:
        heard = radio if settings.discovery.mdns else None
        loop = FailoverLoop(settings, heard, open_session)
        return run_loop(loop, settings, paths, once=wants_once())


if __name__ == "__main__":
    sys.exit(run_process(main))
