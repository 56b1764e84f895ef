"""What the key of an expired certificate signs to get a certificate for its successor.

Both sides compute these octets: the member signs them, the CA verifies. They begin with a label of
their own, so that nothing else which a member's key signs (handshakes, requests) is ever one.
"""

import hashlib

from broker.wire.ids import DER, Hex

_LABEL = b"certmesh renew-expired 1\x00"


def expired_statement(mesh_id: Hex, leaf: DER, csr: DER) -> bytes:
    """Return the octets to sign with ECDSA over SHA-256.

    Args:
        mesh_id: The mesh that is asked: a statement is worth nothing in another one.
        leaf: The expired certificate, whose key signs.
        csr: The request for the next one: a recorded statement certifies no other key.
    """
    digests = (hashlib.sha256(der).digest() for der in (leaf, csr))
    return b"".join((_LABEL, mesh_id.encode("ascii"), b"\x00", *digests))
