"""A two-tier CA for tests, shaped like the real one: name-constrained issuer, short leaves."""

import hashlib
import ipaddress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from workers.keypair import make_key_and_csr

DAY = timedelta(days=1)
DOMAIN = "test.internal"


def now() -> datetime:
    """Return wall time; certificates are compared with it by the code under test."""
    return datetime.now(UTC).replace(microsecond=0)  # noqa: TID251 (certificates need real time)


def pem(der: bytes) -> bytes:
    """Return the PEM of a DER certificate."""
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass
class SmallCA:
    """Signs what it is told to sign."""

    name: str = "test"
    root_key: ec.EllipticCurvePrivateKey = field(default_factory=_key)
    issuing_key: ec.EllipticCurvePrivateKey = field(default_factory=_key)

    def __post_init__(self) -> None:
        """Make both CA certificates."""
        self._root = self._authority(None)
        self._issuing = self._authority(self._root)
        self.root = self._root.public_bytes(Encoding.DER)
        self.issuing = self._issuing.public_bytes(Encoding.DER)
        self.pin = hashlib.sha256(self.root).hexdigest()
        self.root_pem = self._root.public_bytes(Encoding.PEM).decode()

    def sign(
        self,
        csr: bytes,
        host: str,
        *,
        starts: datetime | None = None,
        lasts: timedelta = 30 * DAY,
        sans: tuple[str, ...] = (),
    ) -> bytes:
        """Return a leaf (DER) for the key in `csr`."""
        request = x509.load_der_x509_csr(csr)
        names = sans or (f"{host}.{DOMAIN}", "127.0.0.1")
        return self._leaf(request.public_key(), host, names, (starts or now() - DAY, lasts))

    def pair(self, host: str, sans: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
        """Return fullchain and key (PEM) of a fresh server."""
        key, csr = make_key_and_csr(host)
        leaf = self.sign(csr, host, sans=sans)
        return pem(leaf) + pem(self.issuing), key

    def _leaf(
        self,
        public: CertificatePublicKeyTypes,
        host: str,
        sans: tuple[str, ...],
        validity: tuple[datetime, timedelta],
    ) -> bytes:
        starts, lasts = validity
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(host))
            .issuer_name(self._issuing.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(starts)
            .not_valid_after(starts + lasts)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([_general(san) for san in sans]), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.issuing_key.public_key()),
                critical=False,
            )
        )
        return builder.sign(self.issuing_key, hashes.SHA256()).public_bytes(Encoding.DER)

    def _authority(self, parent: x509.Certificate | None) -> x509.Certificate:
        key = self.root_key if parent is None else self.issuing_key
        subject = _name(f"{self.name} {'root' if parent is None else 'issuing'}")
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if parent is None else parent.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now() - 365 * DAY)
            .not_valid_after(now() + 365 * DAY)
            .add_extension(
                x509.BasicConstraints(ca=True, path_length=1 if parent is None else 0),
                critical=True,
            )
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
        )
        if parent is not None:
            permitted = [
                x509.DNSName(DOMAIN),
                x509.DNSName("local"),
                x509.IPAddress(ipaddress.ip_network("127.0.0.0/8")),
            ]
            builder = builder.add_extension(
                x509.NameConstraints(permitted, None), critical=True
            ).add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root_key.public_key()),
                critical=False,
            )
        return builder.sign(self.root_key, hashes.SHA256())


def key_pem_matches(key: bytes, certificate: bytes) -> bool:
    """Return whether the PEM key is the one of the PEM certificate."""
    private = load_pem_private_key(key, password=None)
    public = x509.load_pem_x509_certificate(certificate).public_key()
    return private.public_key() == public


def key_text(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general(san: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(san))
    except ValueError:
        return x509.DNSName(san)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
