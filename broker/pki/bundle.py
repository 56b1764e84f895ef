"""The signed trust bundle: how every node learns the roster without trusting who brings it.

A bundle is believed because of one thing: the root certificate whose hash the node pinned when it
joined, or one that a bundle believed before said to trust besides it while the CA is replaced. The
issuing certificate inside is only a link of that chain. `roots` in a believed bundle are the one
way by which a node comes to trust another root; which of them it may pin is the question of
`broker.core.rollover`.

The signature covers a context label and the body, so that a signature of the issuing key over
anything else can never be passed off as a bundle.
"""

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import BundleRejectedError, MeshError
from broker.pki.authority import fingerprint
from broker.pki.chain import (
    check_authority,
    check_current,
    check_issued,
    p256_key,
    read_certificate,
)
from broker.pki.issuer import Issuer
from broker.wire.codec import decode_body, encode_body
from broker.wire.roster import BundleBody, SignedBundle

CONTEXT = b"certmesh bundle 1\x00"


def sign_bundle(issuer: Issuer, body: BundleBody) -> SignedBundle:
    """Return `body` signed by the issuing key, with the issuing certificate."""
    raw = encode_body(body)
    return SignedBundle(body=raw, issuing=issuer.issuing_der, signature=issuer.sign(CONTEXT + raw))


def verify_bundle(  # noqa: PLR0913 (what is believed, and all it is held against, by name)
    signed: SignedBundle,
    *,
    root: bytes,
    pin: str,
    mesh_id: str,
    now: int,
    others: tuple[bytes, ...] = (),
) -> BundleBody:
    """Return the body of a bundle that the pinned CA of this mesh signed, or one trusted besides.

    Whether it is newer than the bundle held is the caller's question.

    Args:
        signed: As received; nothing in it is believed yet.
        root: The root certificate, DER.
        pin: Hex SHA-256 of the root certificate, kept since joining.
        mesh_id: The mesh this node belongs to.
        now: Wall time for the validity of the chain.
        others: Roots trusted besides, DER; the bundle has to name the one that it is signed under.

    Raises:
        BundleRejectedError: The detail says which check failed.
    """
    if fingerprint(root) != pin:
        raise BundleRejectedError("the root certificate at hand is not the pinned one")
    anchor = _anchor_of(signed, (root, *others), now)
    issuing = _chained(signed.issuing, anchor, now)
    try:
        p256_key(issuing).verify(signed.signature, CONTEXT + signed.body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise BundleRejectedError("the signature of the bundle does not verify") from None
    try:
        body = decode_body(signed.body, BundleBody)
    except MeshError as error:
        raise BundleRejectedError(f"the signed body cannot be read: {error.detail}") from None
    if body.mesh_id != mesh_id:
        raise BundleRejectedError("the bundle belongs to another mesh")
    if body.pin != fingerprint(anchor):
        raise BundleRejectedError("the bundle names another root certificate")
    _check_roots(body, anchor, now)
    return body


def _anchor_of(signed: SignedBundle, roots: tuple[bytes, ...], now: int) -> bytes:
    """Return the trusted root that the issuing certificate is under, else the pinned one."""
    certificate = _read(signed.issuing, "issuing", now)
    for root in roots:
        try:
            check_issued(certificate, read_certificate(root))
        except ValueError:
            continue
        return root
    return roots[0]


def _check_roots(body: BundleBody, anchor: bytes, now: int) -> None:
    """Refuse a bundle whose further roots, or issuing certificates, nobody could use."""
    roots = [_read(anchor, "root", now)]
    for der in body.roots:
        root = _read(der, "further root", now)
        _require_issued(root, [root], "the further root")
        roots.append(root)
    for der in body.issuers:
        _require_issued(_read(der, "further issuing", now), roots, "the further issuing")


def _require_issued(
    certificate: x509.Certificate, parents: list[x509.Certificate], what: str
) -> None:
    for parent in parents:
        try:
            check_issued(certificate, parent)
        except ValueError:
            continue
        return
    raise BundleRejectedError(f"{what} certificate of the bundle: no root in it has signed it")


def _chained(issuing: bytes, root: bytes, now: int) -> x509.Certificate:
    certificate = _read(issuing, "issuing", now)
    anchor = _read(root, "root", now)
    try:
        check_issued(certificate, anchor)
    except ValueError as error:
        raise BundleRejectedError(f"the issuing certificate of the bundle: {error}") from None
    return certificate


def _read(der: bytes, what: str, now: int) -> x509.Certificate:
    try:
        certificate = read_certificate(der)
        check_authority(certificate)
        check_current(certificate, now)
    except ValueError as error:
        raise BundleRejectedError(f"the {what} certificate of the bundle: {error}") from None
    return certificate
