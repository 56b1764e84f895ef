"""`python -m workers.gateway SETTINGS`: the doors to the network."""

import asyncio
import sys

from broker.runtime.logs import setup_logs
from broker.runtime.main import run_process, wants_once
from broker.runtime.paths import Paths
from broker.runtime.privileges import Needs
from broker.runtime.settings import Settings
from broker.wire.events import CertificateMoved, RoleMoved
from broker.wire.ids import Service
from workers.gateway.limits import gateway_limits
from workers.gateway.service import Gateway
from workers.lifetime import keep_open
from workers.route import Asker


def main(settings: Settings, paths: Paths) -> int:
    """Serve until asked to stop; return the exit status."""
    setup_logs(settings, Service.GATEWAY)
    limits = gateway_limits(settings.listen)

    def build(asker: Asker) -> Gateway:
        return Gateway(settings, paths, asker, limits)

    wakes = (CertificateMoved, RoleMoved)
    return asyncio.run(keep_open(paths, Service.GATEWAY, wakes, build, once=wants_once()))


if __name__ == "__main__":
    sys.exit(run_process(main, needs=Needs(listens=("enroll", "mesh"))))
