"""`python -m workers.console SETTINGS`: the local door."""

import asyncio
import sys

from broker.runtime.exits import Exit
from broker.runtime.logs import setup_logs
from broker.runtime.main import run_process, wants_once
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.ids import Service
from workers.connection import Limits
from workers.console.service import Console
from workers.lifetime import keep_open
from workers.route import Asker


def main(settings: Settings, paths: Paths) -> int:
    """Serve until asked to stop; return the exit status."""
    setup_logs(settings, Service.CONSOLE)
    limits = Limits(body_bytes=settings.listen.body_limit)

    def build(asker: Asker) -> Console:
        return Console(settings, paths, asker, limits)

    asyncio.run(keep_open(paths, Service.CONSOLE, (), build, once=wants_once()))
    return Exit.OK


if __name__ == "__main__":
    sys.exit(run_process(main))
