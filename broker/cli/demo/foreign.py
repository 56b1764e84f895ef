"""Another mesh's CA, made on the spot: same names, other keys. Nobody here may trust it."""

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.cli.demo.tls import Identity
from broker.clock import wall_s

HOUR = dt.timedelta(hours=1)


def foreign_identity(directory: Path, host: str) -> Identity:
    """Return a certificate for `host` from a CA of its own, made below `directory`."""
    directory.mkdir(mode=0o700, exist_ok=True)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo issuing CA")])
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = dt.datetime.fromtimestamp(wall_s(), dt.UTC)
    leaf = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - HOUR)
        .not_valid_after(now + HOUR)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return _written(directory, leaf, key)


def _written(directory: Path, leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Identity:
    identity = Identity(directory / "cert.pem", directory / "key.pem")
    identity.certificate.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    identity.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return identity
