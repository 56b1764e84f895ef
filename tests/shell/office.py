"""A whole broker in this process, without sockets: real ledger, real keys, real frames."""

import hashlib
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.errors import MeshError, StorageError, error_classes
from broker.ledger.sqlite import Ledger
from broker.pki.authority import fingerprint
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import Settings, parse_settings
from broker.shell.create import create_mesh
from broker.shell.desk import Desk, Incoming, Outgoing
from broker.shell.serve import make_state
from broker.wire.authority import MeshCreation
from broker.wire.base import Reply, Request
from broker.wire.codec import WIRE_VERSION, encode
from broker.wire.control import Fault
from broker.wire.enrollment import Issued, Join, JoinAnswer
from broker.wire.ids import Service
from broker.wire.liveness import Ready, Welcome
from broker.wire.messages import AnyEvent, Call
from broker.wire.roster import Peer
from tests.creation import wished

PASSPHRASE = "thickness islamic barman banknote"
R = TypeVar("R", bound=Reply)


def office_settings(**sections: Any) -> Settings:
    """Return settings of a node named atlas with a cheap key derivation."""
    raw: dict[str, Any] = {
        "node": {"name": "atlas"},
        "listen": {"enroll": "127.0.0.1:7642", "mesh": "127.0.0.1:7643"},
        "ca": {"kdf_memory": 8_388_608, "kdf_passes": 1},
        "backup": {"every": "0s"},
        "renewal": {"attempt_every": "0s"},
    }
    for name, values in sections.items():
        raw[name] = {**raw.get(name, {}), **values}
    return parse_settings(raw, "office settings")


@dataclass
class Office:
    """One broker lifetime on a home directory; `crash` starts the next one."""

    paths: Paths
    settings: Settings
    creation: MeshCreation
    desk: Desk
    events: list[AnyEvent] = field(default_factory=list)

    @classmethod
    def create(cls, home: Path, *, approval: bool = False, **sections: Any) -> "Office":
        """Create a mesh named home and open its broker."""
        settings = office_settings(**sections)
        paths = node_paths(home / "certmesh.toml", settings)
        wanted = wished("home", PASSPHRASE, settings=settings, approval=approval)
        creation = create_mesh(settings, paths, wanted)
        return cls(paths, settings, creation, cls._desk(settings, paths))

    @property
    def ledger(self) -> Ledger:
        """The open ledger."""
        return self.desk.state.ledger

    def crash(self) -> None:
        """Lose everything in memory and start again from the disk."""
        self.ledger.close()
        self.desk = self._desk(self.settings, self.paths)

    def introduce(self, service: Service, instance: str = "") -> bytes:
        """Register a worker and return its identity."""
        identity = f"{service}/{instance or service}/{secrets.token_hex(4)}".encode()
        ready = Ready(service, instance or service.value, "boot", 1, WIRE_VERSION)
        self.send(identity, ready, Welcome)
        return identity

    def ask(self, service: Service, request: Request, kind: type[R]) -> R:
        """Ask as a fresh worker of `service`."""
        return self.send(self.introduce(service), request, kind)

    def send(
        self, identity: bytes, request: Request, kind: type[R], request_id: bytes | None = None
    ) -> R:
        """Ask as `identity`; a Fault is raised as the error it stands for."""
        (entry,) = self.turn([(identity, request, request_id or secrets.token_bytes(16))])
        if isinstance(entry.reply, Fault):
            raise _error(entry.reply)
        assert isinstance(entry.reply, kind), entry.reply
        return entry.reply

    def turn(self, calls: list[tuple[bytes, Request, bytes]]) -> list[Outgoing]:
        """Do one drain with these calls and return all its replies."""
        batch = self.desk.open_batch()
        outgoing: list[Outgoing] = []
        for identity, request, request_id in calls:
            frames = encode(Call(request_id, 5000, cast("Any", request)))
            incoming = Incoming(cast("Any", None), identity, frames)
            try:
                entry = self.desk.decide(batch, incoming)
            except StorageError as failure:
                self.desk.refuse(incoming, outgoing, failure)
                self.desk.void(batch, outgoing, failure)
                return outgoing
            if entry is not None:
                outgoing.append(entry)
        self.events.extend(self.desk.finish(batch, outgoing))
        return outgoing

    @staticmethod
    def _desk(settings: Settings, paths: Paths) -> Desk:
        return Desk(make_state(settings, paths, Ledger.open(paths.ledger, node="atlas")))


def make_csr(
    host: str, sans: tuple[str, ...] = (), key: ec.EllipticCurvePrivateKey | None = None
) -> bytes:
    """Return a CSR in DER with a fresh P-256 key."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    )
    if sans:
        names = x509.SubjectAlternativeName([x509.DNSName(san) for san in sans])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def join_request(host: str, csr: bytes, **credential: Any) -> Join:
    """Return a join from 127.0.0.9; override any field by name."""
    fields: dict[str, Any] = {
        "sans": (),
        "invite_secret": "",
        "totp_code": "",
        "ticket_hash": hashlib.sha256(b"ticket").hexdigest(),
        "nonce": "00" * 16,
        "addresses": ("127.0.0.9",),
        "mesh_port": 7643,
        "enroll_port": 7642,
        "source": "127.0.0.9",
        **credential,
    }
    return Join(host=host, csr=csr, **fields)


def peer_of(issued: Issued, host: str) -> Peer:
    """Return the peer a gateway would see for this certificate."""
    return Peer(issued.serial, host, fingerprint(issued.leaf), issued.not_after)


def issued_of(answer: JoinAnswer) -> Issued:
    """Return the certificate of an answer that has one."""
    assert answer.issued is not None
    return answer.issued


def _error(fault: Fault) -> MeshError:
    by_code = {code.value: kind for code, kind in error_classes().items()}
    return by_code[fault.code](fault.detail, hint=fault.hint, retry_after_ms=fault.retry_after_ms)
