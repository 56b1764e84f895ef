"""The pinned root certificate: exactly the octets whose SHA-256 is the pin, or nothing.

While the CA is replaced there is another one beside it, which the broker took from a signed bundle.
"""

import hashlib
import hmac
import ssl

from broker.errors import NoMeshError
from broker.wire.node import Membership


def fingerprint(root_der: bytes) -> str:
    """Return the hex SHA-256 of a DER certificate: the pin."""
    return hashlib.sha256(root_der).hexdigest()


def root_der_of(membership: Membership) -> bytes:
    """Return the trust anchor of a mesh as DER.

    Raises:
        NoMeshError: The stored root is damaged or not the pinned one.
    """
    try:
        der = ssl.PEM_cert_to_DER_cert(membership.root_pem)
    except ValueError:
        raise NoMeshError("the stored root certificate is damaged") from None
    if not hmac.compare_digest(fingerprint(der), membership.pin):
        raise NoMeshError("the stored root certificate is not the pinned one")
    return der


def roots_of(membership: Membership) -> tuple[bytes, ...]:
    """Return all roots to trust as DER, the pinned one first.

    Raises:
        NoMeshError: A stored root is damaged, or the first is not the pinned one.
    """
    try:
        others = [ssl.PEM_cert_to_DER_cert(text) for text in membership.other_roots]
    except ValueError:
        raise NoMeshError("a stored root certificate is damaged") from None
    return (root_der_of(membership), *others)
