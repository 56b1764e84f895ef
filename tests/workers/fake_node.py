"""A node's doors over real TLS on 127.0.0.1: the real HTTP interface, answers from a table.

`FakeNode(ca, {("GET", "/v1/mesh"): lambda visit: MeshAnswer(...)})`. A callable returns a struct
(sent as JSON), octets, a `Page`, or None (the connection is cut), or raises a `MeshError` (sent as
a problem). Every request that arrived is in `visits`, with the caller's certificate.
"""

import http.server
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from broker.errors import ErrorCode, MeshError
from broker.wire.mesh_api import REPLY_JSON, Problem
from broker.wire.node import Endpoint
from tests.workers.small_ca import DOMAIN, SmallCA, pem


@dataclass
class Visit:
    """One request as it arrived."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    peer: bytes | None


@dataclass
class Page:
    """An answer with everything chosen by the test."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


Respond = Callable[[Visit], Any]
Table = dict[tuple[str, str], Respond]
_STATUS = {
    ErrorCode.BAD_CREDENTIAL: 401,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.INVITE_USED: 410,
    ErrorCode.INVITE_EXPIRED: 410,
    ErrorCode.CA_LOCKED: 503,
    ErrorCode.NOT_PRIMARY: 503,
}


class FakeNode:
    """Serves from a thread between `__enter__` and `__exit__`.

    Args:
        ca: Who signed the server's certificate.
        table: Answers by method and path; the query is not looked at.
        host: Member name of the server.
        mutual: Ask for a client certificate below `ca`'s root.
        primary: Named in `not_primary` problems.
    """

    def __init__(
        self,
        ca: SmallCA,
        table: Table | None = None,
        *,
        host: str = "atlas",
        mutual: bool = False,
        primary: Endpoint | None = None,
    ) -> None:
        self.ca = ca
        self.table: Table = dict(table or {})
        self.table.setdefault(("GET", "/v1/ca.pem"), lambda _: pem(ca.root))
        self.host = host
        self.visits: list[Visit] = []
        self.handshakes = 0
        self.primary = primary
        self._context = _server_context(ca, host, mutual=mutual)
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._serve, name=f"fake-{host}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """What a person would type."""
        return f"https://127.0.0.1:{self.port}"

    def endpoint(self, *addresses: str) -> Endpoint:
        """Where this node is, both doors on the same port."""
        return Endpoint(
            host=self.host,
            addresses=addresses or ("127.0.0.1",),
            enroll_port=self.port,
            mesh_port=self.port,
            server_name=f"{self.host}.{DOMAIN}",
        )

    def seen(self, path: str) -> list[Visit]:
        """Return the requests for one path."""
        return [visit for visit in list(self.visits) if visit.path.partition("?")[0] == path]

    def wrap(self, connection: Any) -> ssl.SSLSocket:
        """Return the connection in TLS; the handshake happens in its own thread."""
        return self._context.wrap_socket(
            connection, server_side=True, do_handshake_on_connect=False
        )

    def answer(self, visit: Visit) -> Page | None:
        """Return the page for one request; None cuts the connection."""
        self.visits.append(visit)
        respond = self.table.get((visit.method, visit.path.partition("?")[0]))
        if respond is None:
            return Page(b"nothing here", 404)
        try:
            found = respond(visit)
        except MeshError as error:
            return self._problem(error)
        if isinstance(found, msgspec.Struct):
            return Page(REPLY_JSON.encode(found))
        if isinstance(found, bytes):
            return Page(found)
        assert found is None or isinstance(found, Page)
        return found

    def _problem(self, error: MeshError) -> Page:
        status = _STATUS.get(error.code, 403)
        problem = Problem(
            type="about:blank",
            title=error.code.value,
            status=status,
            code=error.code.value,
            detail=error.detail,
            hint=error.hint,
            primary=self.primary if error.code is ErrorCode.NOT_PRIMARY else None,
        )
        headers = {"Content-Type": "application/problem+json"}
        if error.retry_after_ms:
            headers["Retry-After"] = str(error.retry_after_ms // 1000)
        return Page(msgspec.json.encode(problem), status, headers)

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.01)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        super().__init__(("127.0.0.1", 0), _Exchange)

    def handle_error(self, request: Any, client_address: Any) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Say nothing: refused handshakes are what tests are about."""

    def get_request(self) -> tuple[Any, Any]:  # type: ignore[explicit-override]  # typing.override is 3.12
        connection, address = super().get_request()
        connection.settimeout(10)
        return self.node.wrap(connection), address


class _Exchange(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        self.request.do_handshake()
        self.server.node.handshakes += 1
        super().setup()

    def log_message(self, format: str, *args: Any) -> None:  # type: ignore[explicit-override]  # noqa: A002 (the parent's name)
        """Stay quiet."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        peer = self.request.getpeercert(binary_form=True)
        visit = Visit(self.command, self.path, dict(self.headers.items()), body, peer)
        page = self.server.node.answer(visit)
        if page is None:
            self.close_connection = True
            return
        self.send_response(page.status)
        for name, value in {"Content-Length": str(len(page.body)), **page.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page.body)


def _server_context(ca: SmallCA, host: str, *, mutual: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    fullchain, key = ca.pair(host)
    with tempfile.TemporaryDirectory() as directory:
        cert_path, key_path = Path(directory, "cert.pem"), Path(directory, "key.pem")
        cert_path.write_bytes(fullchain)
        key_path.write_bytes(key)
        context.load_cert_chain(cert_path, key_path)
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=ca.root)
    return context
