"""A server with somebody's certificate and ready-made answers: `python -m tests.lab.impostor`.

Its words: address, port, directory of `fullchain.pem` and `key.pem`, file of answers. The file is
JSON, base64 of the body by `METHOD /path`, and read again for every request; what is not in it is
refused. Prints `ready`, and when standard input ends one JSON object: how often it was `asked` for
what, and how many callers `refused` its certificate.
"""

import base64
import json
import socketserver
import ssl
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from typing_extensions import override

PATIENCE_S = 5.0


class Impostor(socketserver.ThreadingTCPServer):
    """Does the handshake in the caller's own thread, and counts."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, door: tuple[str, int], identity: Path, answers: Path) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(identity / "fullchain.pem", identity / "key.pem")
        self.answers = answers
        self.asked: Counter[str] = Counter()
        self.refused = 0
        super().__init__(door, Answering)

    @override
    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection, if the caller believes the certificate."""
        request.settimeout(PATIENCE_S)
        try:
            with self._context.wrap_socket(request, server_side=True) as wrapped:
                super().finish_request(wrapped, client_address)
        except ssl.SSLError:
            self.refused += 1
        except OSError:
            return  # the caller went away


class Answering(BaseHTTPRequestHandler):
    """Gives the answer in the file, whatever the question was."""

    protocol_version = "HTTP/1.1"
    server: Impostor

    def do_GET(self) -> None:
        """Answer."""
        self._answer()

    def do_POST(self) -> None:
        """Answer; what was said does not matter."""
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self._answer()

    @override
    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        what = f"{self.command} {self.path.partition('?')[0]}"
        known = json.loads(self.server.answers.read_bytes()).get(what)
        self.server.asked[what] += 1
        body = b"" if known is None else base64.b64decode(known)
        self.send_response(404 if known is None else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> int:
    """Serve until standard input ends."""
    address, port, identity, answers = sys.argv[1:]
    with Impostor((address, int(port)), Path(identity), Path(answers)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.read()
        server.shutdown()
        sys.stdout.write(json.dumps({"asked": server.asked, "refused": server.refused}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
