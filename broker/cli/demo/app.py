"""The service that a node of the demo protects: forty lines of HTTPS that ask for a certificate.

`python -m broker.cli.demo.app LIVE_DIR ADDRESS PORT PIDFILE`. SIGHUP makes it read the live
certificate again: a new context, swapped in through the SNI callback, so that open connections
live on and a broken pair on disk leaves the old one in service.
"""

import contextlib
import os
import signal
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from typing_extensions import override

SERVED_SUFFIX = ".served"
"""Written beside the pid file after each (re)load: the version directory now in service."""


class Page(BaseHTTPRequestHandler):
    """One greeting, on connections that stay open."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Greet the caller by the name in its certificate."""
        peer: Any = self.connection.getpeercert()
        subject = {name: text for part in peer["subject"] for name, text in part}
        body = f"hello {subject['commonName']}, this is {name_of(self.server)}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the demo tells what happened."""


class App(ThreadingHTTPServer):
    """Handshakes happen in the connection's own thread, so that one caller cannot block others."""

    daemon_threads = True
    name = ""

    @override
    def finish_request(self, request: Any, client_address: Any) -> None:
        """Serve one connection; a refused handshake ends it quietly."""
        with contextlib.suppress(OSError):
            super().finish_request(request, client_address)


def name_of(server: object) -> str:
    """Return the node name the app was started with."""
    return server.name if isinstance(server, App) else ""


def load(live: Path) -> tuple[ssl.SSLContext, str]:
    """Return a server context for the certificate now live, and its version."""
    version = live.resolve()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # a resumed session would skip the check of the certificate
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(version / "chain.pem")
    context.load_cert_chain(version / "fullchain.pem", version / "key.pem")
    return context, version.name


def main(argv: list[str]) -> int:
    """Serve until SIGTERM."""
    live, address, port, pid_file = Path(argv[0]), argv[1], int(argv[2]), Path(argv[3])
    front, _ = load(live)
    served = [front]

    def reload(*_: object) -> None:
        with contextlib.suppress(OSError):  # a broken pair: the old one stays in service
            served[0], version = load(live)
            pid_file.with_suffix(SERVED_SUFFIX).write_text(version)

    def swap(connection: ssl.SSLObject, _name: str | None, _front: ssl.SSLContext) -> None:
        connection.context = served[0]

    front.sni_callback = swap
    signal.signal(signal.SIGHUP, reload)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = App((address, port), Page)
    app.name = live.parent.name
    app.socket = front.wrap_socket(app.socket, server_side=True, do_handshake_on_connect=False)
    reload()
    pid_file.write_text(str(os.getpid()))
    app.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
