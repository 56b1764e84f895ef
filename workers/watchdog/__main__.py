"""`python -m workers.watchdog SETTINGS`: supervisord's event listener."""

import sys

from broker.client import Link
from broker.clock import boottime_ms
from broker.runtime.events import EventName
from broker.runtime.exits import Exit
from broker.runtime.logfile import LogFile
from broker.runtime.logs import log, setup_logs
from broker.runtime.main import run_process, wants_once
from broker.runtime.paths import Paths
from broker.runtime.privileges import END_OTHERS
from broker.runtime.settings import Settings
from broker.wire.ids import Service
from workers.process import instance_name
from workers.watchdog.table import Table
from workers.watchdog.watch import Watch, run


def main(settings: Settings, paths: Paths) -> int:
    """Watch until told to stop; with `--once` look and report one time."""
    setup_logs(settings, "watchdog", stream=LogFile(paths.log / "watchdog.log"))
    log(EventName.PROCESS_STARTED, service="watchdog")
    with Link(paths, Service.WATCHDOG, instance_name(Service.WATCHDOG)) as link:
        dead_after_ms = settings.broker.worker_dead_after.ms
        watch = Watch(link, Table(paths.supervisor_socket), paths, dead_after_ms)
        if wants_once():
            link.introduce()
            watch.turn(boottime_ms(), hinted=True)
            return Exit.FAILED if watch.state.table_error else Exit.OK
        return run(watch, link)


if __name__ == "__main__":
    sys.exit(run_process(main, needs=END_OTHERS))
