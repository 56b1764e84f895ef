"""A mail server on loopback that keeps what it gets: real SMTP, as much as a client needs."""

import base64
import socketserver
import ssl
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.workers.small_ca import SmallCA


def server_context(ca: SmallCA, host: str = "mail") -> ssl.SSLContext:
    """Return a TLS context with a certificate of `ca` for 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    fullchain, key = ca.pair(host)
    with tempfile.TemporaryDirectory() as directory:
        cert_path, key_path = Path(directory, "cert.pem"), Path(directory, "key.pem")
        cert_path.write_bytes(fullchain)
        key_path.write_bytes(key)
        context.load_cert_chain(cert_path, key_path)
    return context


@dataclass
class Received:
    """One mail as it arrived; `secure` says whether under TLS."""

    sender: str
    recipients: list[str]
    text: str
    secure: bool
    login: str


@dataclass
class Manner:
    """How the server behaves."""

    starttls: ssl.SSLContext | None = None
    implicit: ssl.SSLContext | None = None
    greeting: bytes = b"220 sink"
    mail: bytes = b"250 ok"
    hangs: bool = False
    refused: tuple[str, ...] = ()
    released: threading.Event = field(default_factory=threading.Event)


class MailSink:
    """Serves from a thread between `__enter__` and `__exit__`."""

    def __init__(self, **manner: Any) -> None:
        self.manner = Manner(**manner)
        self.mails: list[Received] = []
        self.logins: list[str] = []
        self.words: list[str] = []
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.manner.released.set()
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    @property
    def place(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def _serve(self) -> None:
        self._server.serve_forever(poll_interval=0.01)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, sink: MailSink) -> None:
        self.sink = sink
        super().__init__(("127.0.0.1", 0), _Session)

    def handle_error(self, request: Any, client_address: Any) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Say nothing: broken handshakes are what tests are about."""


class _Session(socketserver.BaseRequestHandler):
    server: _Server

    def handle(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Speak SMTP until the client leaves."""
        self.manner = self.server.sink.manner
        self.sender, self.login = "", ""
        self.recipients: list[str] = []
        if self.manner.hangs:
            self.manner.released.wait(30)
            return
        if self.manner.implicit is not None:
            self._secure(self.manner.implicit)
        self._say(self.manner.greeting)
        while word := self.lines.readline():
            self.server.sink.words.append(word.decode(errors="replace").strip())
            if not self._obey(word.decode(errors="replace").strip()):
                return

    def setup(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Begin to read."""
        self.wire, self.secure = self.request, False
        self.lines = self.request.makefile("rb")

    def finish(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Close what this session opened."""
        self.lines.close()
        self.wire.close()

    def _secure(self, context: ssl.SSLContext) -> None:
        self.lines.close()
        self.wire = context.wrap_socket(self.wire, server_side=True)
        self.lines, self.secure = self.wire.makefile("rb"), True

    def _say(self, *lines: bytes) -> None:
        self.wire.sendall(b"".join(line + b"\r\n" for line in lines))

    def _obey(self, word: str) -> bool:
        verb = word[:8].upper()
        if verb.startswith("EHLO"):
            offers = [b"250-STARTTLS"] if self.manner.starttls and not self.secure else []
            self._say(b"250-sink", *offers, b"250 AUTH PLAIN")
        elif verb == "STARTTLS" and self.manner.starttls:
            self._say(b"220 go")
            self._secure(self.manner.starttls)
        elif verb.startswith("AUTH PLA"):
            self.login = base64.b64decode(word.split()[2]).decode().replace("\0", "|")
            self.server.sink.logins.append(self.login)
            self._say(b"235 ok")
        elif verb.startswith("MAIL FRO"):
            self.sender = word[10:]
            self._say(self.manner.mail)
        elif verb.startswith("RCPT TO"):
            refused = any(name in word for name in self.manner.refused)
            self.recipients += [] if refused else [word[8:].strip("<>")]
            self._say(b"550 nobody" if refused else b"250 ok")
        elif verb == "DATA":
            self._take()
        else:
            self._say(b"221 bye" if verb == "QUIT" else b"250 ok")
        return verb != "QUIT"

    def _take(self) -> None:
        self._say(b"354 go")
        taken: list[str] = []
        while (line := self.lines.readline()) not in {b".\r\n", b""}:
            taken.append(line.decode())
        mail = Received(self.sender, self.recipients, "".join(taken), self.secure, self.login)
        self.server.sink.mails.append(mail)
        self._say(b"250 taken")
