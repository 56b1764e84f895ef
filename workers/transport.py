"""One HTTPS request: pinned trust, a named server, bounded answers, errors as `MeshError`.

Invariants: see `workers.peer`, which is what other modules use.
"""

import ssl
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout

from broker.clock import boottime_ms
from broker.errors import (
    ErrorCode,
    InternalError,
    MalformedMessageError,
    MeshError,
    NotAMemberError,
    NotPrimaryError,
    OversizedMessageError,
    PeerUnreachableError,
    error_classes,
)
from broker.wire.mesh_api import Problem
from broker.wire.node import Endpoint
from workers.allowance import TimedSocket
from workers.wires import Wires

TIMEOUT_S = 10.0
CONNECT_S_MAX = 3.0
"""A dead address must not eat the patience that the living ones need."""

ANSWER_BYTES_MAX = 1_048_576
CHUNK_BYTES = 65_536
RETRY_S_MAX = 3_600
DIGITS_MAX = 9
NOT_MODIFIED = 304

REFUSED = "the CA did not accept this node's certificate: expired, revoked or from another mesh"
REFUSED_HINT = "run `certmesh doctor` on this node"
IMPOSTOR = "answered, but not as the node it should be"

_ALERTS = (
    "CERTIFICATE_REQUIRED",
    "UNKNOWN_CA",
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "BAD_CERTIFICATE",
)
_ENDINGS = ("closed connection without response", "reset by peer", "EOF occurred", "Broken pipe")
"""A server that rejects a client certificate often closes before its alert gets out."""

A = TypeVar("A", bound=msgspec.Struct)


class ElsewhereError(NotPrimaryError):
    """The node is not the primary and says who is."""

    def __init__(self, detail: str, *, hint: str, primary: Endpoint | None) -> None:
        super().__init__(detail, hint=hint)
        self.primary = primary


def urls_of(addresses: Sequence[str], port: int, path: str) -> list[str]:
    """Return a URL per address, IPv6 in brackets."""
    hosts = [f"[{address}]" if ":" in address else address for address in addresses]
    return [f"https://{host}:{port}{path}" for host in hosts]


def context_for(*roots: bytes) -> ssl.SSLContext:
    """Return a client context that trusts exactly these roots (DER): one, but in a rollover."""
    context = ssl.create_default_context(cadata=b"".join(roots))
    context.sslsocket_class = TimedSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    assert context.cert_store_stats()["x509_ca"] == len(set(roots)), "exactly these trust anchors"
    return context


def unverified_context() -> ssl.SSLContext:
    """Return a client context that believes anybody: for what is checked by other means."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.sslsocket_class = TimedSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Ask(msgspec.Struct, frozen=True):
    """One HTTP request, whoever it goes to."""

    method: str
    content: bytes | None
    timeout_s: float
    headers: Mapping[str, str] = {}
    shows_certificate: bool = False


class _PinnedAdapter(HTTPAdapter):
    """Uses one context and one server name, and lets nothing else choose the trust.

    requests would load the public CA bundle into the context, or the one that the environment
    names; urllib3 takes the name to verify from the URL, which holds an address.
    """

    def __init__(self, context: ssl.SSLContext, server_name: str | None, wires: Wires) -> None:
        self._context = context
        self._name = server_name
        super().__init__(max_retries=0, pool_maxsize=4)
        self.poolmanager.pool_classes_by_scheme = {"https": wires.pool()}

    def build_connection_pool_key_attributes(  # type: ignore[explicit-override]  # typing.override is 3.12
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[Any, Any]:
        """Return where to connect and by which rules; `verify` and `cert` are not asked."""
        del verify, cert
        url = urlsplit(request.url or "")
        place = {"scheme": "https", "host": url.hostname, "port": url.port}
        rules: dict[str, Any] = {"ssl_context": self._context}
        if self._name is None:
            rules["assert_hostname"] = False
        else:
            rules["server_hostname"] = self._name
        return place, rules

    def cert_verify(  # type: ignore[explicit-override]  # typing.override is 3.12
        self, conn: Any, url: Any, verify: Any, cert: Any
    ) -> None:
        """Leave the pool as the context made it."""


class _Session(requests.Session):
    """Looks at no redirect: the library would read its whole body, and stumble over its target."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:  # type: ignore[explicit-override]  # typing.override is 3.12
        del resp
        return None


def open_session(
    context: ssl.SSLContext, server_name: str | None, wires: Wires | None = None
) -> requests.Session:
    """Return a session that can only speak TLS with this context, to servers of this name.

    Its connections are noted in `wires`, for somebody who may have to cut them.
    """
    session = _Session()
    session.trust_env = False  # REQUESTS_CA_BUNDLE and proxies would override the pin silently
    session.adapters.clear()
    session.mount("https://", _PinnedAdapter(context, server_name, wires or Wires()))
    return session


def exchange(session: requests.Session, urls: Sequence[str], ask: Ask) -> bytes:
    """Return the body that the first reachable URL answers.

    Raises:
        PeerUnreachableError: Lists the addresses tried and what became of each.
        MeshError: The answer was a refusal.
    """
    deadline_ms = boottime_ms() + int(ask.timeout_s * 1000)
    failures: list[str] = []
    for url in urls:
        left_s = (deadline_ms - boottime_ms()) / 1000
        if left_s <= 0:
            failures.append(f"{_place(url)} not tried, no time left")
            continue
        try:
            return _answer_of(session, url, ask, left_s)
        except requests.RequestException as error:
            failures.append(f"{_place(url)} {reason_of(error, ask)}")
        except (HTTPError, ValueError) as error:  # what a library makes of a garbled answer
            failures.append(f"{_place(url)} answered nonsense ({type(error).__name__})")
    raise PeerUnreachableError(
        "no address answered: " + "; ".join(failures) if failures else "no address is known",
        hint="is the other node running (`certmesh status` there), and is its port reachable?",
    )


def _answer_of(session: requests.Session, url: str, ask: Ask, left_s: float) -> bytes:
    headers = {"Accept": "application/json", "Accept-Encoding": "identity", **ask.headers}
    if ask.content is not None:
        headers["Content-Type"] = "application/json"
    deadline_ms = boottime_ms() + int(left_s * 1000)
    with session.request(
        ask.method,
        url,
        data=ask.content,
        headers=headers,
        timeout=Timeout(connect=min(left_s, CONNECT_S_MAX), read=left_s, total=left_s),  # type: ignore[arg-type]  # documented by requests, missing in its stubs
        allow_redirects=False,
        stream=True,
    ) as response:
        raw = _bounded(response, deadline_ms)
        if response.status_code == NOT_MODIFIED:
            return b""
        if not response.ok or response.is_redirect:
            raise error_of(response.status_code, raw, response.headers.get("Retry-After", ""))
        return raw


def _bounded(response: requests.Response, deadline_ms: int) -> bytes:
    refuse_compressed(response)
    body = bytearray()
    for chunk in response.iter_content(CHUNK_BYTES):
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise OversizedMessageError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
        if boottime_ms() > deadline_ms:
            raise requests.ReadTimeout("the answer did not end in time")
    return bytes(body)


def refuse_compressed(response: requests.Response) -> None:
    """Let an answer pass whose bytes are what they are: a thousandth of it could fill our memory.

    Raises:
        MalformedMessageError: It is compressed, although this side said that it takes no such.
    """
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise MalformedMessageError("the answer is compressed; this side asked for it as it is")


def error_of(status: int, raw: bytes, retry_after: str = "") -> MeshError:
    """Return the error that a refusal over HTTP stands for."""
    try:
        problem = msgspec.json.decode(raw, type=Problem)
        code = ErrorCode(problem.code)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError):
        return MalformedMessageError(
            f"the peer answered status {status} without a reason this side understands"
        )
    if code is ErrorCode.NOT_PRIMARY:
        return ElsewhereError(problem.detail, hint=problem.hint, primary=problem.primary)
    kind = error_classes().get(code, InternalError)
    wait_ms = _seconds_of(retry_after) * 1000
    return kind(problem.detail, hint=problem.hint, retry_after_ms=wait_ms)


def _seconds_of(retry_after: str) -> int:
    """Return the pause a peer asked for, an hour at most: it may mean harm."""
    if not (retry_after.isascii() and retry_after.isdigit()):
        return 0
    return min(int(retry_after[:DIGITS_MAX]), RETRY_S_MAX)


def reason_of(error: requests.RequestException, ask: Ask) -> str:
    """Return why one address failed.

    Raises:
        NotAMemberError: The peer lives and turned this node's certificate down.
    """
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return IMPOSTOR
    if ask.shows_certificate and any(alert in text for alert in _ALERTS):
        raise NotAMemberError(REFUSED, hint=REFUSED_HINT) from None
    if isinstance(error, requests.ConnectTimeout):
        return "did not answer"
    if isinstance(error, requests.Timeout) or "timed out" in text:
        return "did not answer in time"
    if "Connection refused" in text:
        return "refused the connection"
    if any(ending in text for ending in _ENDINGS):
        maybe = f" (perhaps {REFUSED})" if ask.shows_certificate else ""
        return f"closed the connection without an answer{maybe}"
    return f"failed: {text[-160:]}"


def _place(url: str) -> str:
    return urlsplit(url).netloc


def decoded(raw: bytes, kind: type[A]) -> A:
    """Return the JSON in `raw` as `kind`.

    Raises:
        MalformedMessageError: It is something else.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise MalformedMessageError(f"the peer's answer is no {kind.__name__}: {error}") from None
