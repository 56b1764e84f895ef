"""Who made a CSR that a renewal worker on another machine hands in: the member, by its live key.

A worker at home could read the CA's files as well; one elsewhere is trusted to carry, and not to
have a key of its own certified under a member's name.
"""

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from broker.errors import BadCredentialError
from broker.ledger.rows import MemberRow
from broker.pki.authority import fingerprint
from broker.pki.chain import p256_key, read_certificate
from broker.shell.caller import Caller
from broker.shell.state import BrokerState
from broker.wire.claims import KeyProof
from broker.wire.expired import rekey_statement
from broker.wire.renewal import RenewWithLease

HELD = 2
"""A member holds its current certificate, or the one before: an installation may have failed."""

_ECDSA = ec.ECDSA(hashes.SHA256())


def require_proof(
    state: BrokerState, caller: Caller, member: MemberRow, request: RenewWithLease
) -> None:
    """Let a CSR of a worker at home pass, and one from elsewhere that the member proved to be its.

    Raises:
        BadCredentialError: No proof, or none by the key of a certificate that the member holds.
    """
    if caller.grant is None:
        return
    try:
        assert state.membership is not None, "who signs has a mesh"
        _verify(state, member, request.proof, (state.membership.mesh_id, request.csr))
    except (ValueError, InvalidSignature):
        raise BadCredentialError(
            f"{member.host} did not prove that it made this request",
            hint="a worker elsewhere only carries requests; an older release there proves none",
        ) from None


def _verify(
    state: BrokerState, member: MemberRow, proof: KeyProof | None, what: tuple[str, bytes]
) -> None:
    if proof is None:
        raise ValueError("no proof")
    leaf = read_certificate(proof.leaf)
    found = state.ledger.certificate(serial_of(leaf))
    if found is None or found[1].fingerprint != fingerprint(proof.leaf):
        raise ValueError("not in the roster")
    if found[0].member_id != member.member_id or found[1].serial not in held_by(state, member):
        raise ValueError("not a certificate that this member holds")
    mesh_id, csr = what
    statement = rekey_statement(mesh_id, proof.leaf, csr)
    p256_key(leaf).verify(proof.signature, statement, _ECDSA)


def serial_of(leaf: x509.Certificate) -> str:
    """Return the serial as the roster writes it."""
    return format(leaf.serial_number, "x")


def held_by(state: BrokerState, member: MemberRow) -> set[str]:
    """Return the serials that a member may really have: the newest, and what it said it serves."""
    presence = state.presence.of(member.member_id)
    newest = state.ledger.certificates_of(member.member_id, HELD)
    told = presence.served_serial if presence is not None else ""
    held = {row.serial for row in newest} | {member.current_serial, member.served_serial, told}
    return held - {""}
