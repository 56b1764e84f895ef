"""The enrollment secret on its way through the journal: sealed, so that only key holders read it.

The journal is copied to every standby, into backups and exports. The secret is therefore sealed
under the wrapping key that all key holders of the mesh share and nobody else has.
"""

from broker.pki.sealed import NONCE_BYTES, Box, Entropy, Sealer, open_box

PURPOSE = "totp rotated"
"""Not the purpose of the box beside the CA's keys: neither can stand in for the other."""


def seal_totp(wrapping_key: bytes, mesh_id: str, secret: bytes, entropy: Entropy) -> Box:
    """Return `secret` sealed for the key holders of this mesh.

    Args:
        wrapping_key: 32 bytes that all key holders share.
        mesh_id: Bound into the box.
        secret: The enrollment secret.
        entropy: Returns that many fresh random bytes.
    """
    return Sealer(mesh_id, entropy, 0).box(wrapping_key, PURPOSE, secret)


def open_totp(wrapping_key: bytes, mesh_id: str, box: tuple[bytes, bytes]) -> bytes | None:
    """Return the enrollment secret in (nonce, ciphertext), None when it is not for these keys."""
    nonce, ciphertext = box
    if len(nonce) != NONCE_BYTES:
        return None
    return open_box(wrapping_key, mesh_id, PURPOSE, Box(nonce, ciphertext))
