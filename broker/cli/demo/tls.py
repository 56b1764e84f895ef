"""TLS as a stranger sees it: connections with a certificate or none, and what came of them."""

import http.client
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from typing_extensions import override

from broker.cli.demo.failure import StepError
from broker.cli.demo.node import MESH_PORT, Node

PATIENCE_S = 5.0
APP_PORT = 18443


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its chain, and the key to it."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True)
class Door:
    """A TLS listener: where it is and which name its certificate must carry."""

    address: str
    port: int
    server_name: str


def identity_of(node: Node) -> Identity:
    """Return the identity that is live on `node`, by version, so that it cannot change midway."""
    version = node.live.resolve()
    return Identity(version / "fullchain.pem", version / "key.pem")


def mesh_door(node: Node) -> Door:
    """Return the mutual-TLS port of `node`."""
    return Door(node.address, MESH_PORT, node.server_name)


def app_door(node: Node) -> Door:
    """Return the port of the demo's own service on `node`."""
    return Door(node.address, APP_PORT, node.server_name)


def client_context(trust: Path, identity: Identity | None) -> ssl.SSLContext:
    """Return a context that trusts only `trust` and shows `identity`, or nothing."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(trust)
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


class Connection(http.client.HTTPSConnection):
    """HTTPS to an address, verified under the server name; it never reconnects by itself."""

    auto_open = 0

    def __init__(
        self, door: Door, context: ssl.SSLContext, session: ssl.SSLSession | None = None
    ) -> None:
        super().__init__(door.server_name, door.port, timeout=PATIENCE_S, context=context)
        self._door = door
        self._trust = context
        self._resumed = session

    @override
    def connect(self) -> None:
        """Dial the address, then prove the name."""
        plain = socket.create_connection((self._door.address, self._door.port), PATIENCE_S)
        self.sock = self._trust.wrap_socket(
            plain, server_hostname=self._door.server_name, session=self._resumed
        )

    @property
    def tls(self) -> ssl.SSLSocket:
        """The socket of the open connection."""
        assert isinstance(self.sock, ssl.SSLSocket)
        return self.sock

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a GET on this very connection."""
        self.request("GET", path)
        answer = self.getresponse()
        return answer.status, answer.read()


def served_serial(door: Door, context: ssl.SSLContext) -> str:
    """Return the serial of the certificate a fresh handshake with `door` shows."""
    with (
        socket.create_connection((door.address, door.port), PATIENCE_S) as plain,
        context.wrap_socket(plain, server_hostname=door.server_name) as wrapped,
    ):
        shown = wrapped.getpeercert(binary_form=True)
    assert shown is not None
    return f"{x509.load_der_x509_certificate(shown).serial_number:x}"


def refusal(door: Door, context: ssl.SSLContext, path: str = "/") -> str:
    """Return how `door` turned this caller away; silence is no evidence.

    Raises:
        StepError: It answered the request, or did not answer at all.
    """
    connection = Connection(door, context)
    try:
        connection.connect()
        status, _ = connection.get(path)
    except TimeoutError:
        raise StepError(f"{door.address}:{door.port} neither served nor refused") from None
    except ssl.SSLError as error:
        return error.reason or "TLS alert"
    except (ConnectionError, http.client.HTTPException):
        return "connection closed"
    finally:
        connection.close()
    raise StepError(f"{door.address}:{door.port} served a caller it had to refuse ({status})")


def live_serial(node: Node) -> str:
    """Return the serial of the certificate live on disk at `node`."""
    pem = (node.live / "cert.pem").read_bytes()
    return f"{x509.load_pem_x509_certificate(pem).serial_number:x}"
