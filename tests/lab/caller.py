"""One request over TLS, with any identity or none: `python -m tests.lab.caller`, body on stdin.

Its words: address, port, server name, root certificate, identity, method, path. The identity is a
directory of `fullchain.pem` and `key.pem`, or `-`. Prints one JSON object: `status` and `body` in
base64, or `refused` with the reason when TLS or the connection ended instead.
"""

import base64
import http.client
import json
import socket
import ssl
import sys
from pathlib import Path

from typing_extensions import override

PATIENCE_S = 5.0


class Connection(http.client.HTTPSConnection):
    """Dials an address, and verifies a name."""

    def __init__(self, door: tuple[str, int], name: str, context: ssl.SSLContext) -> None:
        super().__init__(name, timeout=PATIENCE_S, context=context)
        self._door, self._name, self._trust = door, name, context

    @override
    def connect(self) -> None:
        """Shake hands."""
        plain = socket.create_connection(self._door, PATIENCE_S)
        self.sock = self._trust.wrap_socket(plain, server_hostname=self._name)


def main() -> int:
    """Ask once and print what came of it."""
    address, port, name, root, identity, method, path = sys.argv[1:]
    context = ssl.create_default_context(cafile=root)
    if identity != "-":
        context.load_cert_chain(Path(identity, "fullchain.pem"), Path(identity, "key.pem"))
    connection = Connection((address, int(port)), name, context)
    shown: dict[str, object]
    try:
        headers = {"Content-Type": "application/json"}
        connection.request(method, path, sys.stdin.buffer.read() or None, headers)
        answer = connection.getresponse()
        body = base64.b64encode(answer.read()).decode()
        shown = {"status": answer.status, "body": body}
    except (OSError, http.client.HTTPException) as error:
        shown = {"refused": f"{type(error).__name__}: {error}"}
    finally:
        connection.close()
    sys.stdout.write(json.dumps(shown) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
