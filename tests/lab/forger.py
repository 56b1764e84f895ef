"""A CA with the mesh's own name and number that nobody pinned, and what it vouches for."""

from dataclasses import replace
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.clock import wall_s
from broker.pki.authority import pem
from broker.pki.bundle import sign_bundle
from broker.pki.profile import LeafProfile
from broker.pki.request import parse_request
from broker.wire.codec import decode_body, encode_body
from broker.wire.node import Membership
from broker.wire.roster import BundleBody, SignedBundle
from tests.lab.host import Host
from tests.pki.making import ca_profile, csr, issuer_of, new_authority

DAY_S = 86_400
NEWER = 10_000


class Forger:
    """Signs whatever is asked for, as if it were the CA of a node's mesh."""

    def __init__(self, victim: Host) -> None:
        known = self._membership = membership_of(victim)
        profile = replace(ca_profile(), mesh_id=known.mesh_id, mesh_name=known.mesh_name)
        self._victim = victim
        self._issuer = issuer_of(new_authority(profile, wall_s()))

    def identity(self, place: Path) -> Path:
        """Write a certificate and key for the node's name and address into a directory."""
        host, membership = self._victim, self._membership
        key, now = ec.generate_private_key(ec.SECP256R1()), wall_s()
        profile = LeafProfile(
            serial=NEWER,
            host=host.name,
            sans=(membership.server_name, host.address),
            not_before=now - 60,
            not_after=now + DAY_S,
            crl_url="",
            mesh_id=membership.mesh_id,
            member_id=membership.member_id,
        )
        leaf = self._issuer.sign_leaf(parse_request(csr(key, common_name=host.name)), profile)
        place.mkdir(parents=True, exist_ok=True)
        (place / "fullchain.pem").write_text(pem(leaf) + pem(self._issuer.issuing_der))
        plain = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (place / "key.pem").write_bytes(key.private_bytes(*plain))
        return place

    def bundle(self, authentic: bytes) -> bytes:
        """Return a newer roster than an authentic one."""
        body = decode_body(decode_body(authentic, SignedBundle).body, BundleBody)
        newer = msgspec.structs.replace(body, bundle_sequence=body.bundle_sequence + NEWER)
        return encode_body(sign_bundle(self._issuer, newer))


def membership_of(host: Host) -> Membership:
    """Return what a node keeps of its mesh."""
    return msgspec.json.decode((host.home / "membership.json").read_bytes(), type=Membership)
