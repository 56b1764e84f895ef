"""Making a certificate authority: a root, and one name-constrained issuing CA below it.

The root (pathlen 1) signs exactly one thing here and is then sealed by the passphrase alone. The
issuing CA (pathlen 0) cannot certify a name outside the mesh's domains and networks: whoever
steals its key gains the LAN's names, not the world's. Both name families are always constrained;
a family without a permitted member is excluded as a whole (RFC 5280 4.2.1.10 leaves a family
that is not mentioned unrestricted).
"""

import hashlib
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.errors import MalformedMessageError, SettingsError
from broker.pki.chain import PARSE_ERRORS, key_identifier, spki_of, utc
from broker.pki.profile import is_dns_name

BACKDATE_S = 60
"""Clocks of a LAN differ; the first leaf must be valid on a host that is slightly behind."""
NAME_LENGTH_MAX = 40
"""Of the mesh name inside a CN, which X.520 bounds at 64."""
ALL_IPV4 = ipaddress.IPv4Network("0.0.0.0/0")
ALL_IPV6 = ipaddress.IPv6Network("::/0")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class CAProfile:
    """What a mesh's CA may do and for how long; names as in settings (`*.home.arpa`).

    `generation` counts the CAs of a mesh: those after the first have it in their names, so that a
    trust store which holds two of them tells them apart.
    """

    mesh_id: str
    mesh_name: str
    permitted_names: tuple[str, ...]
    permitted_networks: tuple[str, ...]
    root_lifetime_s: int
    issuer_lifetime_s: int
    generation: int = 1


@dataclass(frozen=True, slots=True)
class CreatedAuthority:
    """A new CA as DER, the keys as PKCS #8; the representation shows no key.

    `root_crl` is the root's own revocation list: it names nobody, for as long as the root lives.
    """

    root: bytes
    issuing: bytes
    root_key: bytes = field(repr=False)
    issuing_key: bytes = field(repr=False)
    root_crl: bytes = b""


def create_authority(profile: CAProfile, *, now: int, serials: tuple[int, int]) -> CreatedAuthority:
    """Return a new root and the issuing CA below it, both ECDSA P-256.

    Args:
        profile: Names, networks and lifetimes.
        now: Wall time; validity starts a minute earlier.
        serials: Random serial numbers of root and issuing certificate.

    Raises:
        SettingsError: A permitted name or network is malformed, or a lifetime is not positive.
    """
    if min(profile.root_lifetime_s, profile.issuer_lifetime_s) <= 0:
        raise SettingsError("ca.root_lifetime and ca.issuer_lifetime must be positive")
    constraints = _name_constraints(profile)
    root_key = ec.generate_private_key(ec.SECP256R1())
    issuing_key = ec.generate_private_key(ec.SECP256R1())
    root_name, issuing_name = _name(profile, "root"), _name(profile, "issuing CA")
    root = _draft(root_key, root_name, serials[0], path_length=1)
    root = _valid(root, now, profile.root_lifetime_s).issuer_name(root_name)
    issuing = _draft(issuing_key, issuing_name, serials[1], path_length=0)
    # An issuing CA that outlives its root would promise what nobody can verify.
    lifetime_s = min(profile.issuer_lifetime_s, profile.root_lifetime_s)
    issuing = _valid(issuing, now, lifetime_s).issuer_name(root_name)
    issuing = _constrain(issuing, constraints, _identifier(root_key))
    return CreatedAuthority(
        root=root.sign(root_key, hashes.SHA256()).public_bytes(Encoding.DER),
        issuing=issuing.sign(root_key, hashes.SHA256()).public_bytes(Encoding.DER),
        root_key=_pkcs8(root_key),
        issuing_key=_pkcs8(issuing_key),
        root_crl=_root_crl(root_key, root_name, now, now + profile.root_lifetime_s),
    )


def fingerprint(der: bytes) -> str:
    """Return the hex SHA-256 of a certificate; of the root it is the pin of the mesh."""
    return hashlib.sha256(der).hexdigest()


def pem(der: bytes) -> str:
    """Return a DER certificate as PEM; raises `MalformedMessageError` when it is none."""
    try:
        return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode("ascii")
    except PARSE_ERRORS:
        raise MalformedMessageError("not a DER certificate") from None


def der_of_pem(text: str) -> bytes:
    """Return the one certificate in a PEM text as DER.

    Raises:
        MalformedMessageError: No certificate in it, or more than one.
    """
    try:
        certificates = x509.load_pem_x509_certificates(text.encode())
    except PARSE_ERRORS:
        raise MalformedMessageError("not a PEM certificate") from None
    if len(certificates) != 1:
        raise MalformedMessageError(f"expected one PEM certificate, got {len(certificates)}")
    return certificates[0].public_bytes(Encoding.DER)


def _name(profile: CAProfile, what: str) -> x509.Name:
    # The id keeps two meshes of the same name apart in a trust store.
    common = f"{profile.mesh_name[:NAME_LENGTH_MAX]} {what} {profile.mesh_id[:8]}"
    if profile.generation > 1:
        common = f"{common} {profile.generation}"
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "certmesh"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _draft(
    key: ec.EllipticCurvePrivateKey, name: x509.Name, serial: int, *, path_length: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_ca_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier(_identifier(key)), critical=False)
    )


def _valid(builder: x509.CertificateBuilder, now: int, lifetime_s: int) -> x509.CertificateBuilder:
    return builder.not_valid_before(utc(now - BACKDATE_S)).not_valid_after(utc(now + lifetime_s))


def _root_crl(
    key: ec.EllipticCurvePrivateKey, name: x509.Name, now: int, next_update: int
) -> bytes:
    """Return the root's only CRL, made while its key is at hand.

    Software that checks the whole chain (OpenSSL's CRL_CHECK_ALL, as nginx and PostgreSQL set it)
    refuses everybody when one authority of the chain has no list. The root never revokes its
    issuing CA: a stolen issuing key is answered by a rollover to another root, so the list may be
    empty and last as long as the root.
    """
    identifier = x509.AuthorityKeyIdentifier(_identifier(key), None, None)
    draft = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name)
        .last_update(utc(now - BACKDATE_S))
        .next_update(utc(next_update))
        .add_extension(identifier, critical=False)
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    return draft.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _constrain(
    builder: x509.CertificateBuilder, constraints: x509.NameConstraints, root_identifier: bytes
) -> x509.CertificateBuilder:
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    authority = x509.AuthorityKeyIdentifier(root_identifier, None, None)
    return (
        builder.add_extension(authority, critical=False)
        .add_extension(constraints, critical=True)
        # Bounds the issuing CA to TLS: no mail, no code signing under this root.
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
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


def _name_constraints(profile: CAProfile) -> x509.NameConstraints:
    names = [x509.DNSName(_domain(name)) for name in profile.permitted_names]
    networks = [_network(text) for text in profile.permitted_networks]
    excluded: list[x509.GeneralName] = [x509.IPAddress(net) for net in _unmentioned(networks)]
    if not names:
        excluded.append(x509.DNSName(""))
    permitted: list[x509.GeneralName] = [*names, *(x509.IPAddress(net) for net in networks)]
    return x509.NameConstraints(permitted or None, excluded or None)


def _unmentioned(networks: list[Network]) -> Iterator[Network]:
    versions = {network.version for network in networks}
    for everything in (ALL_IPV4, ALL_IPV6):
        if everything.version not in versions:
            yield everything


def _domain(name: str) -> str:
    domain = name.removeprefix("*.").lower()
    if not is_dns_name(domain):
        raise SettingsError(
            f"policy.names: {name!r} is not a domain",
            hint='write it like "*.home.arpa"',
        )
    return domain


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        raise SettingsError(
            f"policy.networks: {text!r} is not an IP network",
            hint='write it like "192.168.0.0/16"',
        ) from None


def _identifier(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key_identifier(spki_of(key.public_key()))


def _pkcs8(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
