"""One certificate that nobody will ever use: proof that a CA key can issue for a member."""

import hashlib
import secrets

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from broker.errors import KeyRejectedError
from broker.ledger.rows import MemberRow, MeshRow
from broker.pki.chain import read_certificate, spki_of, utc
from broker.pki.issuer import Issuer
from broker.pki.profile import LeafProfile, address_of
from broker.pki.request import CertificateRequest
from broker.units import UnixSeconds
from broker.wire.facts import CertificateRenewed

LIFETIME_S = 60
SERIAL_BITS = 126
"""Below a leading one, so that all serials are equally long, as those of real leaves."""
BACKDATE_S = 60
"""As every leaf: a rehearsal should fail where the real thing would."""


def throwaway(
    issuer: Issuer, mesh: MeshRow, member: MemberRow, now: UnixSeconds
) -> CertificateRenewed:
    """Return the journal row of a certificate for `member`, issued and verified as its peers do.

    Its private key is forgotten when this returns.

    Raises:
        KeyRejectedError: A peer that trusts the pinned root would refuse it.
        MeshError: The issuer would not sign it.
    """
    request = _request(member)
    profile = LeafProfile(
        serial=1 << SERIAL_BITS | secrets.randbits(SERIAL_BITS),
        host=member.host,
        sans=member.sans,
        not_before=now - BACKDATE_S,
        not_after=min(now + LIFETIME_S, issuer.not_after),
        crl_url="",
        mesh_id=mesh.mesh_id,
        member_id=member.member_id,
    )
    leaf = issuer.sign_leaf(request, profile)
    verify_path(issuer, leaf, member.sans[0], now)
    return CertificateRenewed(
        member_id=member.member_id,
        serial=f"{profile.serial:x}",
        key_hash=request.key_hash,
        not_before=UnixSeconds(profile.not_before),
        not_after=UnixSeconds(profile.not_after),
        renew_at=UnixSeconds(profile.not_after),
        certificate=leaf,
        replaces=member.current_serial,
    )


def _request(member: MemberRow) -> CertificateRequest:
    public_key = ec.generate_private_key(ec.SECP256R1()).public_key()
    spki = spki_of(public_key)
    key_hash = hashlib.sha256(spki).hexdigest()
    return CertificateRequest(public_key, spki, key_hash, member.host, member.sans)


def verify_path(issuer: Issuer, leaf: bytes, san: str, now: UnixSeconds) -> None:
    """Verify the path from the leaf to the root, as a server of that name and as a client.

    Raises:
        KeyRejectedError: A peer that trusts the root would refuse it.
    """
    address = address_of(san)
    subject = x509.DNSName(san) if address is None else x509.IPAddress(address)
    policy = PolicyBuilder().store(Store([read_certificate(issuer.root_der)])).time(utc(now))
    certificate = read_certificate(leaf)
    between = [read_certificate(issuer.issuing_der)]
    try:
        policy.build_server_verifier(subject).verify(certificate, between)
        policy.build_client_verifier().verify(certificate, between)
    except VerificationError as error:
        raise KeyRejectedError(f"peers would refuse what this key issues: {error}") from None
