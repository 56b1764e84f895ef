"""Notices, and a plain HTTP receiver on this machine."""

import http.server
import threading
from collections.abc import Callable
from typing import Any, Self

from broker.runtime.paths import Paths
from broker.runtime.settings import Notify, parse_settings
from broker.units import UnixSeconds
from broker.wire.notice import Notice
from tests.workers.fake_node import Page, Visit

NOTICE = Notice(
    notice_id="0a" * 16,
    event="hook.failed",
    severity="warning",
    at=UnixSeconds(1_795_440_000),
    mesh="home",
    node="atlas",
    subject="nas",
    summary="nas rolled its renewal back: a hook or a probe failed",
    detail="hook nginx: exit 1",
    hint="on nas: certmesh hook log",
    key="hook.failed:01",
)


def notify_of(**settings: Any) -> Notify:
    """Return the section with these settings."""
    return parse_settings({"notify": {"timeout": "5s", **settings}}, "test settings").notify


def write_secret(paths: Paths, name: str, secret: bytes, mode: int = 0o600) -> None:
    """Write a secret file below the node's home."""
    path = paths.home / name
    path.write_bytes(secret + b"\n")
    path.chmod(mode)


class PlainServer:
    """HTTP without TLS; `respond` returns a page, or None to cut the connection."""

    def __init__(self, respond: Callable[[Visit], Page | None] = lambda _: Page()) -> None:
        self.visits: list[Visit] = []
        self.respond = respond
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.01)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, plain: PlainServer) -> None:
        self.plain = plain
        super().__init__(("127.0.0.1", 0), _Exchange)

    def handle_error(self, request: Any, client_address: Any) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Say nothing."""


class _Exchange(http.server.BaseHTTPRequestHandler):
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # type: ignore[explicit-override]  # noqa: A002 (the parent's name)
        """Stay quiet."""

    def do_POST(self) -> None:
        """Take it."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        visit = Visit("POST", self.path, dict(self.headers.items()), body, None)
        self.server.plain.visits.append(visit)
        page = self.server.plain.respond(visit)
        if page is None:
            self.close_connection = True
            return
        self.send_response(page.status)
        for name, value in {"Content-Length": str(len(page.body)), **page.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(page.body)
