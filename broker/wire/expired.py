"""What the key of a certificate signs to get one for its successor: after expiry, and at a push.

Both sides compute these octets: the member signs them, the CA verifies. They begin with a label of
their own, so that nothing else which a member's key signs (handshakes, requests) is ever one.
"""

import hashlib

from broker.wire.ids import DER, Hex

_LABEL = b"certmesh renew-expired 1\x00"
_REKEY = b"certmesh rekey 1\x00"


def expired_statement(mesh_id: Hex, leaf: DER, csr: DER) -> bytes:
    """Return the octets to sign with ECDSA over SHA-256.

    Args:
        mesh_id: The mesh that is asked: a statement is worth nothing in another one.
        leaf: The expired certificate, whose key signs.
        csr: The request for the next one: a recorded statement certifies no other key.
    """
    return _statement(_LABEL, mesh_id, (leaf, csr))


def rekey_statement(mesh_id: Hex, leaf: DER, csr: DER) -> bytes:
    """Return the octets that prove who made a CSR: signed by the key of the live `leaf`."""
    return _statement(_REKEY, mesh_id, (leaf, csr))


def _statement(label: bytes, mesh_id: Hex, parts: tuple[DER, DER]) -> bytes:
    digests = (hashlib.sha256(der).digest() for der in parts)
    return b"".join((label, mesh_id.encode("ascii"), b"\x00", *digests))
