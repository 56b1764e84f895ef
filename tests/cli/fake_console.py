"""A console that answers what a test tells it to: real HTTP on a real Unix socket.

Answers are the JSON of the broker's own reply structs, so the command decodes what it will decode
in earnest.
"""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec

from broker.errors import MeshError
from broker.wire.mesh_api import Problem
from broker.wire.operator import OPERATOR_HEADER

NOT_FOUND = 404
Answer = tuple[int, bytes, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    body: bytes
    operator: str = field(default="", compare=False)


@dataclass
class FakeConsole:
    """What to answer, and what was asked."""

    answers: dict[tuple[str, str], Answer] = field(default_factory=dict)
    turns: dict[tuple[str, str], list[Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def answer(self, method: str, path: str, reply: msgspec.Struct) -> None:
        """Answer this request with a reply of the broker."""
        self.answers[method, path] = (200, msgspec.json.encode(reply), {})

    def answer_in_turn(self, method: str, path: str, *replies: msgspec.Struct) -> None:
        """Answer this request with one reply after the other; the last one stays."""
        self.turns[method, path] = [(200, msgspec.json.encode(reply), {}) for reply in replies]

    def found(self, method: str, path: str) -> Answer:
        """Return the answer whose turn it is."""
        waiting = self.turns.get((method, path))
        if waiting:
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]
        missing: Answer = (NOT_FOUND, b'{"no": "such answer"}', {})
        asked = (path, f"{path.partition('?')[0]}?*")
        return next(
            (self.answers[method, p] for p in asked if (method, p) in self.answers), missing
        )

    def refuse(
        self, method: str, path: str, error: MeshError, status: int = 409, **headers: str
    ) -> None:
        """Answer this request with a problem document."""
        problem = Problem(
            type="about:blank",
            title="Refused",
            status=status,
            code=error.code.value,
            detail=error.detail,
            hint=error.hint,
        )
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[method, path] = (status, msgspec.json.encode(problem), named)

    def say(self, method: str, path: str, raw: bytes, status: int = 200) -> None:
        """Answer this request with these very octets."""
        self.answers[method, path] = (status, raw, {})


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = False
    block_on_close = True
    console: FakeConsole


class _Desk(BaseHTTPRequestHandler):
    server: _Server

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        console = self.server.console
        # http.server reads headers as Latin-1; the command sends UTF-8, as the console expects.
        operator = self.headers.get(OPERATOR_HEADER, "").encode("latin-1").decode()
        asked = Asked(self.command, self.path, self.rfile.read(length), operator)
        console.asked.append(asked)
        status, raw, headers = console.found(self.command, self.path)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 (the names http.server calls)

    def address_string(self) -> str:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Return a name for the caller; a Unix socket has no address."""
        return "local"

    def log_message(self, format: str, *args: object) -> None:  # type: ignore[explicit-override]  # noqa: A002
        """Say nothing."""


@contextmanager
def console_on(path: Path) -> Iterator[FakeConsole]:
    """Serve a fake console on the socket at `path` until the block ends."""
    with _Server(str(path), _Desk) as server:
        server.console = FakeConsole()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.console
        finally:
            server.shutdown()
            thread.join()
