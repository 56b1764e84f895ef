"""The failover process: `python -m workers.failover SETTINGS [--once]`."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from broker.runtime.logs import setup_logs
from broker.runtime.main import run_process, wants_once
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from workers.failover.loop import FailoverLoop, deadline_ms
from workers.failover.radio import Radio
from workers.process import run_loop
from workers.sessions import opener

if TYPE_CHECKING:
    from workers.failover.air import ZeroconfAir


def main(settings: Settings, paths: Paths) -> int:
    """Run the loop; at the end the announcement is withdrawn, with goodbyes."""
    setup_logs(settings, FailoverLoop.service.value)

    def open_air(changed: Callable[[], None]) -> "ZeroconfAir":
        from workers.failover.air import ZeroconfAir  # noqa: PLC0415 (5 MB, unless mDNS is off)

        return ZeroconfAir(settings.discovery, changed)

    with Radio(open_air, settings.broker.worker_dead_after.ms) as radio:
        heard = radio if settings.discovery.mdns else None
        open_session = opener(deadline_ms(settings.failover.tick.ms) / 1000)
        loop = FailoverLoop(settings, heard, open_session)
        return run_loop(loop, settings, paths, once=wants_once())


if __name__ == "__main__":
    sys.exit(run_process(main))
