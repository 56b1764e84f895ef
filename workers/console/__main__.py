"""`python -m workers.console SETTINGS`: the local door."""

import asyncio
import sys

from broker.runtime.logs import setup_logs
from broker.runtime.main import run_process, wants_once
from broker.runtime.paths import Paths
from broker.runtime.privileges import Needs
from broker.runtime.settings import Settings
from broker.wire.ids import Service
from workers.affordable import affordable
from workers.connection import Limits
from workers.console.service import Console
from workers.lifetime import keep_open
from workers.route import Asker


def main(settings: Settings, paths: Paths) -> int:
    """Serve until asked to stop; return the exit status."""
    setup_logs(settings, Service.CONSOLE)
    limits = affordable(Limits(body_bytes=settings.listen.body_limit), doors=2)

    def build(asker: Asker) -> Console:
        return Console(settings, paths, asker, limits)

    return asyncio.run(keep_open(paths, Service.CONSOLE, (), build, once=wants_once()))


if __name__ == "__main__":
    sys.exit(run_process(main, needs=Needs(listens=("dashboard",))))
