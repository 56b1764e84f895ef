"""Real authorities, keys and requests for tests; nothing here is faked."""

import functools
import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.pki.authority import CAProfile, CreatedAuthority, create_authority
from broker.pki.issuer import Issuer
from broker.pki.profile import LeafProfile
from broker.pki.seal import KDFCost, SealedKeys, seal_keys

NOW = 1_780_000_000
DAY = 86_400
MESH_ID = "ab" * 16
MEMBER_ID = "cd" * 16
CRL_URL = "https://10.0.0.1:7642/v1/crl.der"
NAMES = ("*.home.arpa", "*.internal")
NETWORKS = ("10.0.0.0/8", "192.168.0.0/16", "fc00::/7")
CHEAP = KDFCost(memory_kib=64, passes=1, lanes=1)
PASSPHRASE = b"correct horse battery staple"
CREDENTIAL = bytes(range(32))
TOTP_SECRET = b"12345678901234567890"


def ca_profile(
    names: Sequence[str] = NAMES,
    networks: Sequence[str] = NETWORKS,
    issuer_lifetime_s: int = 730 * DAY,
) -> CAProfile:
    """Return the profile of a small mesh."""
    return CAProfile(
        mesh_id=MESH_ID,
        mesh_name="home",
        permitted_names=tuple(names),
        permitted_networks=tuple(networks),
        root_lifetime_s=3650 * DAY,
        issuer_lifetime_s=issuer_lifetime_s,
    )


def new_authority(profile: CAProfile | None = None, now: int = NOW) -> CreatedAuthority:
    """Return a new CA."""
    serials = (1 + secrets.randbits(126), 1 + secrets.randbits(126))
    return create_authority(profile or ca_profile(), now=now, serials=serials)


@functools.cache
def authority() -> CreatedAuthority:
    """Return the CA most tests share; nothing changes it."""
    return new_authority()


def issuer_of(created: CreatedAuthority) -> Issuer:
    """Return the open issuer of a CA."""
    return Issuer.open(root=created.root, issuing=created.issuing, issuing_key=created.issuing_key)


@functools.cache
def issuer() -> Issuer:
    """Return the issuer of the shared CA."""
    return issuer_of(authority())


@functools.cache
def member_key() -> ec.EllipticCurvePrivateKey:
    """Return the key of an ordinary member."""
    return ec.generate_private_key(ec.SECP256R1())


def csr(
    key: CertificateIssuerPrivateKeyTypes | None = None,
    *,
    common_name: str = "web",
    sans: Iterable[x509.GeneralName] = (x509.DNSName("web.home.arpa"),),
    extensions: Iterable[x509.ExtensionType] = (),
    algorithm: hashes.HashAlgorithm | None = hashes.SHA256(),  # noqa: B008 (a constant)
) -> bytes:
    """Return a correctly signed request as DER."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    draft = x509.CertificateSigningRequestBuilder().subject_name(name)
    names = list(sans)
    if names:
        draft = draft.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extensions:
        draft = draft.add_extension(extension, critical=False)
    return draft.sign(key or member_key(), algorithm).public_bytes(Encoding.DER)  # type: ignore[arg-type]  # Ed25519 takes None


def leaf_profile(
    *,
    host: str = "web",
    sans: tuple[str, ...] = ("web.home.arpa", "10.0.0.5"),
    not_after: int = NOW + 30 * DAY,
    serial: int = 0,
    crl_url: str = CRL_URL,
) -> LeafProfile:
    """Return the profile of an ordinary leaf."""
    return LeafProfile(
        serial=serial or 1 + secrets.randbits(127),
        host=host,
        sans=sans,
        not_before=NOW - 60,
        not_after=not_after,
        crl_url=crl_url,
        mesh_id=MESH_ID,
        member_id=MEMBER_ID,
    )


def counting_entropy(seed: bytes = b"seed") -> Callable[[int], bytes]:
    """Return a deterministic stand-in for the shell's randomness: every draw differs."""
    drawn = 0

    def draw(count: int) -> bytes:
        nonlocal drawn
        drawn += 1
        return hashlib.shake_256(seed + drawn.to_bytes(4, "big")).digest(count)

    return draw


def sealed_keys(credential: bytes | None = CREDENTIAL) -> SealedKeys:
    """Return the sealed keys of the shared CA, at a cost fit for tests."""
    return seal_keys(
        authority(),
        mesh_id=MESH_ID,
        totp_secret=TOTP_SECRET,
        passphrase=PASSPHRASE,
        credential=credential,
        kdf=CHEAP,
        entropy=counting_entropy(),
        now=NOW,
    )
