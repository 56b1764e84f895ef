"""A small CA for tests of the demo's own service; the mesh's real one is not needed there."""

import datetime as dt
import socket
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from broker.cli.demo.tls import Identity
from broker.clock import wall_s


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Authority:
    """One self-signed root that issues leaves directly."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test root")])
        basic = x509.BasicConstraints(ca=True, path_length=0)
        self._root = (
            self._builder(self._name, self._key.public_key())
            .add_extension(basic, critical=True)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        """The root certificate."""
        return self._root.public_bytes(serialization.Encoding.PEM)

    def write(self, directory: Path, server_name: str) -> Identity:
        """Issue a leaf and write the files a node keeps of it."""
        directory.mkdir()
        key = ec.generate_private_key(ec.SECP256R1())
        host = server_name.partition(".")[0]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        names = x509.SubjectAlternativeName([x509.DNSName(server_name)])
        leaf = (
            self._builder(subject, key.public_key())
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        pem = leaf.public_bytes(serialization.Encoding.PEM)
        (directory / "cert.pem").write_bytes(pem)
        (directory / "fullchain.pem").write_bytes(pem)
        (directory / "chain.pem").write_bytes(self.pem)
        (directory / "key.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return Identity(directory / "fullchain.pem", directory / "key.pem")

    def _builder(
        self, subject: x509.Name, public_key: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        now = dt.datetime.fromtimestamp(wall_s(), dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=5))
            .not_valid_after(now + dt.timedelta(minutes=5))
        )
