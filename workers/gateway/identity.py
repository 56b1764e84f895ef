"""Who is at the other end of a mesh connection: the certificate TLS verified, read once."""

import ssl
import warnings

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from broker.errors import NotAMemberError, UnavailableError
from broker.units import UnixSeconds
from broker.wire.roster import Peer
from workers.connection import Connection
from workers.leaf import PARSE_ERRORS

HOST_LENGTH_MAX = 253
UNREADABLE: tuple[type[Exception], ...] = (UserWarning, *PARSE_ERRORS)


def peer_of(connection: Connection) -> Peer:
    """Return the certificate of a connection's caller; parsed once, kept with the connection.

    A TLS session has one client certificate for its whole life, so keeping it is safe; whether its
    owner still belongs to the mesh is asked of the broker on every request.

    Raises:
        NotAMemberError: The certificate names no host.
        UnavailableError: The connection is gone.
    """
    if connection.peer is None:
        connection.peer = peer_from(_certificate(connection), connection.origin.source)
    return connection.peer


def peer_from(der: bytes, address: str) -> Peer:
    """Return what a client certificate says.

    Raises:
        NotAMemberError: It does not name exactly one host, or cannot be read.
    """
    try:
        # What the library only warns of, such as a negative serial, this mesh never issued.
        with warnings.catch_warnings(action="error", category=UserWarning):
            certificate = x509.load_der_x509_certificate(der)
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except UNREADABLE:
        raise NotAMemberError("the client certificate cannot be read") from None
    if len(names) != 1 or not 0 < len(names[0].value) <= HOST_LENGTH_MAX:
        raise NotAMemberError("the client certificate does not name one host")
    return Peer(
        serial=f"{certificate.serial_number:x}",
        host=str(names[0].value),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        not_after=UnixSeconds(int(certificate.not_valid_after_utc.timestamp())),
        address=address,
    )


def _certificate(connection: Connection) -> bytes:
    transport = connection.transport
    session = transport.get_extra_info("ssl_object") if transport else None
    if not isinstance(session, ssl.SSLObject):
        raise UnavailableError("the connection is gone")
    der = session.getpeercert(binary_form=True)
    if der is None:
        raise NotAMemberError("this door needs a client certificate")
    return der
