"""A tiny CA for tests: root, issuing certificate, leaves, and a node's files on disk."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.clock import wall_s
from broker.runtime.paths import Paths
from broker.wire.node import Endpoint, Membership

DAY_S = 86_400
SERVER_NAME = "atlas.lab.internal"
ENDPOINT = Endpoint(
    host="atlas",
    addresses=("127.0.0.1",),
    enroll_port=7642,
    mesh_port=7643,
    server_name=SERVER_NAME,
)


@dataclass(frozen=True)
class Pair:
    """A leaf with its key; `chain` starts with the leaf."""

    chain: bytes
    key: bytes
    serial: str
    fingerprint: str


class Lab:
    """One certificate authority with an issuing certificate below its root."""

    def __init__(self, name: str = "lab") -> None:
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._issuing_key = ec.generate_private_key(ec.SECP256R1())
        self._root_name = _name(f"{name} root")
        self._issuing_name = _name(f"{name} issuing")
        self.root = self._authority(self._root_name, self._root_key)
        self.issuing = self._authority(self._issuing_name, self._issuing_key)

    @property
    def root_pem(self) -> str:
        """The trust anchor."""
        return self.root.public_bytes(Encoding.PEM).decode()

    def leaf(
        self,
        host: str = "atlas",
        *,
        from_s: int = -60,
        until_s: int = DAY_S,
        serial: int | None = None,
    ) -> Pair:
        """Return a leaf valid from and until so many seconds from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(host))
            .issuer_name(self._issuing_name)
            .public_key(key.public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(_moment(from_s))
            .not_valid_after(_moment(until_s))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self._issuing_key, hashes.SHA256())
        )
        pem = certificate.public_bytes(Encoding.PEM) + self.issuing.public_bytes(Encoding.PEM)
        return Pair(
            chain=pem,
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            serial=f"{certificate.serial_number:x}",
            fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        )

    def trusting(self, path: Path, pair: Pair | None = None) -> ssl.SSLContext:
        """Return a client context that trusts this CA and shows `pair`."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.root_pem)
        if pair is not None:
            file = path / f"client-{pair.serial}.pem"
            file.write_bytes(pair.key + pair.chain)
            context.load_cert_chain(file)
        return context

    def _authority(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._root_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(-DAY_S))
            .not_valid_after(_moment(DAY_S * 30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self._root_key, hashes.SHA256())
        )


def install(paths: Paths, pair: Pair, *, key: bytes | None = None, host: str = "atlas") -> None:
    """Make `pair` the live certificate; another `key` makes it one that does not match."""
    store = paths.certificates / host
    version = store / f"v{len(list(store.glob('v*'))) + 1:04}"
    version.mkdir(parents=True)
    (version / "fullchain.pem").write_bytes(pair.chain)
    (version / "key.pem").write_bytes(key or pair.key)
    staged = store / "next"
    staged.symlink_to(version.name)
    staged.replace(store / "live")


def write_membership(paths: Paths, root_pem: str, host: str = "atlas") -> None:
    """Make the node a member of the mesh with this root."""
    membership = Membership(
        mesh_id="aa",
        mesh_name="lab",
        pin="bb",
        root_pem=root_pem,
        host=host,
        member_id="cc",
        server_name=SERVER_NAME,
        primary=ENDPOINT,
    )
    paths.membership.write_bytes(msgspec.json.encode(membership))


def _moment(offset_s: int) -> datetime:
    return datetime.fromtimestamp(wall_s() + offset_s, tz=UTC)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
