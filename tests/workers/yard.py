"""A gateway with open doors on 127.0.0.1, its stub broker, and the CA behind it."""

import ssl

from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.wire.roster import WhoAmI, WhoAmIAnswer
from tests.stub_broker import StubBroker
from tests.workers.door_house import House, Notebook, port_of
from tests.workers.tls_lab import Lab, Pair, install, write_membership
from workers.connection import Limits
from workers.gateway.service import Gateway

LIMITS = Limits(
    body_bytes=2048, per_source=4, connections=6, in_flight=2, header_s=0.4, body_s=0.4, drain_s=1.0
)


def whoami(request: WhoAmI) -> WhoAmIAnswer:
    """Answer as the CA would."""
    return WhoAmIAnswer(
        host=request.peer.host,
        member_id="cc",
        role="member",
        serial=request.peer.serial,
        state="active",
    )


class Yard:
    """A gateway with open doors, its stub broker, and the CA behind it."""

    def __init__(
        self,
        paths: Paths,
        settings: Settings,
        house: House,
        broker: StubBroker,
        limits: Limits = LIMITS,
    ) -> None:
        self.paths = paths
        self.house = house
        self.broker = broker
        self.lab = Lab()
        self.own = self.lab.leaf()
        self.notes = Notebook()
        self.gateway = house.furnish(lambda asker: Gateway(settings, paths, asker, limits))

    def open(self) -> None:
        """Install a certificate and open the doors."""
        write_membership(self.paths, self.lab.root_pem)
        install(self.paths, self.own)
        self.round()

    def round(self) -> float:
        """Run one round of the process."""
        return self.house.round(self.gateway, self.notes)

    @property
    def mesh(self) -> int:
        """Port of the mesh door."""
        return port_of(self.gateway.mesh)

    @property
    def enroll(self) -> int:
        """Port of the enrol door."""
        return port_of(self.gateway.enroll)

    def stranger(self) -> ssl.SSLContext:
        """A client without a certificate."""
        return self.lab.trusting(self.paths.home)

    def member(self, pair: Pair | None = None) -> ssl.SSLContext:
        """A client with one."""
        return self.lab.trusting(self.paths.home, pair or self.lab.leaf("nas"))
