"""A CA whose certificates end within minutes, and hosts that kept the keys of theirs."""

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker.clock import boottime_ms, wall_s
from broker.shell.ticks import Ticks
from broker.wire.enrollment import CreateInvite, InviteView, Issued, JoinAnswer
from broker.wire.expired import expired_statement
from broker.wire.ids import Service
from broker.wire.renewal import RenewalAnswer, RenewAsPeer, RenewExpired
from tests.shell.mesh_room import PushedClock
from tests.shell.office import Office, issued_of, join_request, make_csr, peer_of

LIFETIME_S = 3600
GRACE_S = 86_400
SOURCE = "127.0.0.9"
GRACIOUS: dict[str, Any] = {
    "policy": {"leaf_lifetime": "1h", "expired_grace": "1d", "outage_budget": "0s"},
    "renewal": {"attempt_every": "1m"},
}


@dataclass
class Night:
    """Time that passes for one office, which is awake again at its end."""

    office: Office
    clock: PushedClock

    def sleep(self, seconds: int) -> None:
        """Let time pass; the primary then asks around whether it was replaced, and serves."""
        self.clock.push(seconds * 1000)
        ticks = Ticks(self.office.desk.state)
        for _ in range(2):
            batch = self.office.desk.open_batch()
            ticks.run(batch, boottime_ms(), wall_s())
            self.office.events.extend(self.office.desk.finish(batch, []))
        assert self.office.desk.state.serves

    def sleep_past(self, moment: int) -> None:
        """Sleep until `moment`, wall time."""
        self.sleep(moment - wall_s())


def new_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh key."""
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class Sleeper:
    """A host with its certificate and the key of it."""

    host: str
    member_id: str
    key: ec.EllipticCurvePrivateKey
    issued: Issued
    mesh_id: str
    waiting: ec.EllipticCurvePrivateKey = field(default_factory=new_key)

    def request(
        self,
        csr: bytes | None = None,
        *,
        signer: ec.EllipticCurvePrivateKey | None = None,
        mesh_id: str = "",
        source: str = SOURCE,
    ) -> RenewExpired:
        """Return what it sends; every part can be somebody else's."""
        csr = make_csr(self.host, key=self.waiting) if csr is None else csr
        said = expired_statement(mesh_id or self.mesh_id, self.issued.leaf, csr)
        signature = (signer or self.key).sign(said, ec.ECDSA(hashes.SHA256()))
        return RenewExpired(self.issued.leaf, csr, signature, source)

    def take(self, issued: Issued) -> None:
        """Install what the waiting key got."""
        self.issued, self.key, self.waiting = issued, self.waiting, new_key()


def enrolled(office: Office, host: str = "nas", *, rejoin: bool = False) -> Sleeper:
    """Enroll a host by invite."""
    secret, key = secrets.token_urlsafe(8), new_key()
    digest = hashlib.sha256(secret.encode()).hexdigest()
    wanted = CreateInvite(digest, host, (), 3600, "ann", rejoin)
    office.ask(Service.CONSOLE, wanted, InviteView)
    request = join_request(host, make_csr(host, key=key), invite_secret=secret)
    answer = office.ask(Service.GATEWAY, request, JoinAnswer)
    return Sleeper(host, answer.member_id, key, issued_of(answer), answer.mesh_id)


def ask(office: Office, request: RenewExpired) -> Issued:
    """Ask at the enrol door."""
    return office.ask(Service.GATEWAY, request, RenewalAnswer).issued


def pull(office: Office, sleeper: Sleeper) -> Issued:
    """Renew while the certificate is valid, as a member that asks for itself."""
    csr = make_csr(sleeper.host, key=sleeper.waiting)
    request = RenewAsPeer(peer_of(sleeper.issued, sleeper.host), csr)
    return office.ask(Service.GATEWAY, request, RenewalAnswer).issued
