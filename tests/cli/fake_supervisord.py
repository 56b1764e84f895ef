"""A supervisord that runs nothing: its XML-RPC on its Unix socket, and what it was asked."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any
from xmlrpc.client import dumps, loads

from typing_extensions import override

ANSWERS: dict[str, Any] = {
    "supervisor.getAllProcessInfo": [],
    "supervisor.reloadConfig": [[["renewal"], [], []]],
    "supervisor.addProcessGroup": True,
}


@contextmanager
def fake_supervisord(socket: Path) -> Iterator[list[str]]:
    """Answer at `socket`; yield the methods that were called, in order."""
    called: list[str] = []

    class Answerer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            _, method = loads(self.rfile.read(length).decode())
            assert method is not None
            called.append(method)
            body = dumps((ANSWERS[method],), methodresponse=True).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    socket.parent.mkdir(parents=True, exist_ok=True)
    with ThreadingUnixStreamServer(str(socket), Answerer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield called
        finally:
            server.shutdown()
            thread.join()
