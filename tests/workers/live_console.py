"""A console in this process before a real broker process, and both of its doors on TCP."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from broker.runtime.settings import load_settings
from broker.wire.ids import Service
from tests.shell.office import Office
from tests.shell.test_shell_process import on_disk, running
from tests.support import eventually
from tests.workers.door_house import House, port_of
from workers.connection import Limits, Origin
from workers.console.service import Console
from workers.listener import tcp_listener

LIMITS = Limits(per_source=512)


@dataclass(frozen=True)
class LiveConsole:
    """Addresses of one console: of its local door, and of its dashboard port."""

    office: Office
    local: str
    dashboard: str

    def token(self, *scopes: str, name: str = "test") -> str:
        """Return a new token, made over the local door."""
        wish = {"name": name, "scopes": scopes}
        made = requests.post(f"{self.local}/v1/tokens", json=wish, timeout=10)
        assert made.status_code == 201, made.text
        return str(made.json()["token"])


@contextmanager
def live_console(home: Path) -> Iterator[LiveConsole]:
    """Run a broker with a mesh and a console that serves it.

    The local door listens on TCP too, for clients that know nothing else; whoever calls there is
    taken for the node's own user.
    """
    office = on_disk(home)
    with office.paths.settings.open("a", encoding="utf-8") as file:
        file.write("[discovery]\nmdns = false\n")
    text = office.paths.settings.read_text().replace(
        "[listen]\n", '[listen]\ndashboard = "127.0.0.1:0"\n'
    )
    office.paths.settings.write_text(text)
    office.paths.run.mkdir(mode=0o700, exist_ok=True)
    settings = load_settings(office.paths.settings)
    own = Origin(source=f"uid:{os.geteuid()}", uid=os.geteuid())
    with running(office), House(office.paths, Service.CONSOLE) as house:
        console = house.furnish(
            lambda asker: Console(settings, office.paths, asker, LIMITS, lambda _peer: own)
        )
        house.do(lambda: console.door.open(tcp_listener("127.0.0.1:0", 64), None))
        house.round(console)
        local, dashboard = (
            f"http://127.0.0.1:{port_of(door)}" for door in (console.door, console.dashboard)
        )
        eventually(lambda: requests.get(f"{local}/v1/node", timeout=5).status_code == 200, 15)
        yield LiveConsole(office, local, dashboard)
