"""A member proves, with the key of its live certificate, that a CSR is its own."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.wire.claims import KeyProof
from broker.wire.expired import rekey_statement
from workers.leaf import PARSE_ERRORS


def prove(key: bytes, leaf: bytes, mesh_id: str, csr: bytes) -> KeyProof | None:
    """Return the proof; None when the key cannot sign one, and the CA's own workers have to come.

    Args:
        key: Of the live certificate, PEM.
        leaf: The live certificate, DER.
        mesh_id: Of the mesh that both belong to.
        csr: The request, DER.
    """
    try:
        private = load_pem_private_key(key, password=None)
    except PARSE_ERRORS:
        return None
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        return None
    statement = rekey_statement(mesh_id, leaf, csr)
    return KeyProof(leaf, private.sign(statement, ec.ECDSA(hashes.SHA256())))
