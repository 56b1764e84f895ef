"""HTTPS calls to other nodes: verified by the mesh's own root and by name, or not made at all.

Invariants: TLS 1.3; exactly one trust anchor, the pinned root, whatever the environment says, and
while the CA is replaced the other root too; the server proves the name it was asked for, wherever
it was found; nothing is sent in plain text; no redirect is followed; an answer is bounded in size
and in time. Every trouble is a `MeshError`.
"""

import hmac
import ssl
import threading
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from urllib3.exceptions import InsecureRequestWarning

from broker.errors import MalformedMessageError, NotAMemberError, PinMismatchError
from broker.runtime.paths import Paths
from broker.wire.base import Body
from broker.wire.node import Endpoint, Membership
from workers.certstore import CertificateStore
from workers.leaf import PARSE_ERRORS
from workers.root import fingerprint, root_der_of, roots_of
from workers.transport import (
    TIMEOUT_S,
    Ask,
    ElsewhereError,
    context_for,
    decoded,
    exchange,
    open_session,
    unverified_context,
    urls_of,
)
from workers.wires import Wires

__all__ = [
    "TIMEOUT_S",
    "ElsewhereError",
    "PeerSession",
    "PinnedSession",
    "fetch_root",
    "fetch_unverified",
    "fingerprint",
    "probe_root",
    "root_der_of",
    "urls_of",
]

A = TypeVar("A", bound=msgspec.Struct)


class PinnedSession:
    """Calls to doors that ask for no client certificate (the enrol port).

    Args:
        root_ders: The trust anchor; while the CA is replaced the other one too.
        server_name: Name the server must prove; None accepts any certificate below the root.
        timeout_s: For a whole call, all addresses together.
    """

    def __init__(
        self, *root_ders: bytes, server_name: str | None = None, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._context = context_for(*root_ders)
        self._context.check_hostname = server_name is not None
        self._name = server_name
        self._timeout_s = timeout_s
        self._session = open_session(self._context, server_name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def get(
        self, urls: Sequence[str], kind: type[A], *, headers: Mapping[str, str] | None = None
    ) -> A:
        """Return the answer of the first of `urls` that answers; raises as `PeerSession.call`."""
        raw = exchange(self._session, urls, Ask("GET", None, self._timeout_s, headers or {}))
        return decoded(raw, kind)

    def fetch(self, urls: Sequence[str]) -> bytes:
        """Return the octets at the first of `urls` that answers; raises as `PeerSession.call`."""
        return exchange(self._session, urls, Ask("GET", None, self._timeout_s))

    def post(self, urls: Sequence[str], body: Body, kind: type[A]) -> A:
        """Return the answer of the first of `urls` that answers; raises as `PeerSession.call`."""
        content = msgspec.json.encode(body)
        return decoded(exchange(self._session, urls, Ask("POST", content, self._timeout_s)), kind)

    def close(self) -> None:
        """Drop the connections."""
        self._session.close()


class Credentials:
    """What this node shows and trusts, as a TLS context; made anew when `live` has moved.

    Making one costs as much as a call. Sessions may share one, in any thread.
    """

    def __init__(self, paths: Paths, membership: Membership) -> None:
        self._roots = roots_of(membership)
        self._store = CertificateStore(paths.certificates, membership.host)
        self._lock = threading.Lock()
        self._link = ""
        self._context: ssl.SSLContext | None = None

    def current(self) -> tuple[str, ssl.SSLContext]:
        """Return the version that is live now, and the context with it.

        Raises:
            NotAMemberError: There is no usable certificate.
        """
        with self._lock:
            try:
                link = str(self._store.live_link.readlink())
            except OSError:
                link = ""
            if self._context is None or not link or link != self._link:
                self._context, self._link = self._made(), link
            return self._link, self._context

    def _made(self) -> ssl.SSLContext:
        live = self._store.live()
        if live is None:
            raise NotAMemberError(
                "this node has no usable certificate yet", hint="run `certmesh cert show`"
            )
        context = context_for(*self._roots)
        context.load_cert_chain(live.fullchain, live.key)
        return context


class PeerSession:
    """Calls to other members of the mesh over mutual TLS.

    The client certificate is the live one at the time of the call: connections made with an older
    one are closed when `live` has moved (a session keeps the old certificate otherwise).

    Args:
        paths: Where this node's certificates are.
        membership: The mesh and its root.
        timeout_s: For a whole call, all addresses together.
        credentials: Those of this node, if others use them too.
    """

    def __init__(
        self,
        paths: Paths,
        membership: Membership,
        *,
        timeout_s: float = TIMEOUT_S,
        credentials: Credentials | None = None,
    ) -> None:
        self._credentials = credentials or Credentials(paths, membership)
        self._timeout_s = timeout_s
        self._sessions: dict[str, requests.Session] = {}
        self._version = ""
        self._wires = Wires()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def call(  # noqa: PLR0913 (one call has this many sides; the last two have defaults)
        self,
        endpoint: Endpoint,
        method: str,
        path: str,
        body: Body | None,
        kind: type[A],
        *,
        port: str = "mesh",
        timeout_s: float | None = None,
    ) -> A:
        """Return the answer of `endpoint`, tried at its addresses in order.

        Args:
            endpoint: Whom to call; its `server_name` is verified.
            method: HTTP method.
            path: Path and query.
            body: JSON body, or None.
            kind: Struct the answer decodes to.
            port: "mesh" or "enroll".
            timeout_s: Other than the session's.

        Raises:
            PeerUnreachableError: No address answered, or none as this endpoint.
            NotAMemberError: The peer refused this node's certificate.
            MeshError: The peer's refusal, by its code.
        """
        content = None if body is None else msgspec.json.encode(body)
        ask = Ask(method, content, timeout_s or self._timeout_s, {}, shows_certificate=True)
        return decoded(self._exchange(endpoint, path, port, ask), kind)

    def fetch(
        self,
        endpoint: Endpoint,
        path: str,
        body: Body | None = None,
        *,
        port: str = "mesh",
        timeout_s: float | None = None,
    ) -> bytes:
        """Return the octets at `path`, empty when there is nothing new; with a body by POST.

        Arguments and errors are those of `call`.
        """
        content = None if body is None else msgspec.json.encode(body)
        method = "GET" if body is None else "POST"
        ask = Ask(method, content, timeout_s or self._timeout_s, {}, shows_certificate=True)
        return self._exchange(endpoint, path, port, ask)

    def abort(self) -> None:
        """End the call that another thread makes here, and all later ones: close it then."""
        self._wires.cut()

    def close(self) -> None:
        """Drop all connections; the next call makes new ones with the live certificate."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def _exchange(self, endpoint: Endpoint, path: str, port: str, ask: Ask) -> bytes:
        number = endpoint.mesh_port if port == "mesh" else endpoint.enroll_port
        session = self._session_for(endpoint.server_name)
        return exchange(session, urls_of(endpoint.addresses, number, path), ask)

    def _session_for(self, server_name: str) -> requests.Session:
        version, context = self._credentials.current()
        if version != self._version:
            self.close()
            self._version = version
        if server_name not in self._sessions:
            self._sessions[server_name] = open_session(context, server_name, self._wires)
        return self._sessions[server_name]


def fetch_root(url: str, pin: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """Return the root certificate (DER) at the node behind `url` if it is the pinned one.

    Nothing secret is sent: the connection is not verified yet.

    Args:
        url: `https://ADDRESS:PORT`.
        pin: Hex SHA-256 over the DER of the root.
        timeout_s: For the whole call.

    Raises:
        PinMismatchError: Another CA answered.
        PeerUnreachableError: Nobody answered.
    """
    root = probe_root(url, timeout_s)
    found = fingerprint(root)
    if not hmac.compare_digest(found, pin.lower()):
        raise PinMismatchError(
            f"the CA at {url} is sha256:{found[:16]}, expected sha256:{pin[:16]}; nothing was sent",
            hint="somebody may stand between you and the CA, or the invite is from another mesh",
        )
    return root


def fetch_unverified(endpoint: Endpoint, path: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """Return the octets at `path` of the enrol port, whoever answers: they must prove themselves.

    Nothing secret is sent.

    Raises:
        PeerUnreachableError: Nobody answered.
        MeshError: The refusal.
    """
    urls = urls_of(endpoint.addresses, endpoint.enroll_port, path)
    with warnings.catch_warnings(), open_session(unverified_context(), None) as session:
        warnings.simplefilter("ignore", InsecureRequestWarning)  # what comes is signed
        return exchange(session, urls, Ask("GET", None, timeout_s))


def probe_root(url: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """Return whatever root certificate (DER) the node behind `url` shows, unverified."""
    context = unverified_context()
    with warnings.catch_warnings(), open_session(context, None) as session:
        warnings.simplefilter("ignore", InsecureRequestWarning)  # the pin is compared instead
        raw = exchange(session, [f"{url.rstrip('/')}/v1/ca.pem"], Ask("GET", None, timeout_s))
    try:
        return x509.load_pem_x509_certificate(raw).public_bytes(Encoding.DER)
    except PARSE_ERRORS:
        raise MalformedMessageError(
            f"what {url} answered is not a CA certificate",
            hint="is that the enrol port (7642) of a certmesh node?",
        ) from None
