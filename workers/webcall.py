"""One POST to a web server that is no node of ours: a ticket system, a chat, a push service.

Invariants: the server proves the name in the URL to the chosen trust; plain HTTP goes to this
machine alone; proxies and trust from the environment are not asked; no redirect is followed; the
answer is bounded.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from broker.errors import MalformedMessageError
from broker.runtime.notifying import is_loopback
from workers.transport import open_session, refuse_compressed
from workers.wires import Wires

CONNECT_S_MAX = 5.0
CHUNK_BYTES = 8192
ANSWER_BYTES_MAX = 65_536


@dataclass(frozen=True, slots=True)
class WebReply:
    """What came back; names of headers in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]


def public_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a client context that trusts the CAs in the file, or else the system's.

    Raises:
        OSError: The file cannot be read, or holds no certificate (`ssl.SSLError`).
    """
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    # The receiver is somebody's server, not a node of ours: 1.2 is what many still speak.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class _PlainAdapter(HTTPAdapter):
    """Plain HTTP whose connections are noted."""

    def __init__(self, wires: Wires) -> None:
        super().__init__(max_retries=0)
        self.poolmanager.pool_classes_by_scheme = {"http": wires.plain_pool()}


def web_session(context: ssl.SSLContext, url: str, wires: Wires) -> requests.Session:
    """Return a session for this URL alone; its connections are noted in `wires`.

    Raises:
        ValueError: Plain HTTP to another machine.
    """
    parts = urlsplit(url)
    session = open_session(context, parts.hostname, wires)
    if parts.scheme == "http":
        if not is_loopback(parts.hostname or ""):
            raise ValueError("plain HTTP goes to this machine alone")
        session.mount("http://", _PlainAdapter(wires))
    return session


def post_web(
    session: requests.Session, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float
) -> WebReply:
    """Return what the server answers to `body`.

    Args:
        session: See `web_session`.
        url: Where to.
        body: What to send.
        headers: With it; `Content-Type` among them.
        timeout_s: For the connection, and for each wait on the answer.

    Raises:
        requests.RequestException: It could not be reached, or did not finish.
        MalformedMessageError: It answered too much, or compressed.
    """
    sent = {"Accept-Encoding": "identity", "User-Agent": "certmesh", **headers}
    with session.post(
        url,
        data=body,
        headers=sent,
        timeout=(min(timeout_s, CONNECT_S_MAX), timeout_s),
        allow_redirects=False,
        stream=True,
    ) as response:
        refuse_compressed(response)
        answer = bytearray()
        for chunk in response.iter_content(CHUNK_BYTES):
            answer += chunk
            if len(answer) > ANSWER_BYTES_MAX:
                raise MalformedMessageError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes")
        found = {name.lower(): value for name, value in response.headers.items()}
        return WebReply(response.status_code, bytes(answer), found)
