"""One HTTPS POST in a thread of its own, so that nobody waits who has something else to do.

Invariants: TLS or nothing; the server proves the name in the URL to the chosen trust; proxies and
trust from the environment are not asked; no redirect is followed; the answer is bounded. A call
that is given up is cut: its thread ends, however slowly the other side drips.
"""

import contextlib
import os
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import requests

from broker.errors import MalformedMessageError, MeshError
from workers.approval.dialogue import (
    ANSWER_BYTES_MAX,
    SIGNATURE_HEADER,
    SignedQuestion,
    TryAgainError,
)
from workers.transport import open_session
from workers.wires import Wires

CONNECT_S_MAX = 5.0
CHUNK_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    body: bytes
    signature: str


def public_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a client context that trusts the CAs in the file, or else the system's.

    Raises:
        OSError: The file cannot be read, or holds no certificate (`ssl.SSLError`).
    """
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    # The receiver is somebody's web server, not a node of ours: 1.2 is what many still speak.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Post:
    """A POST under way; `fileno` is readable when `result` may be asked.

    Args:
        context: Whom to trust.
        url: Where to; https.
        question: What to send.
        timeout_s: For the connection, and for each wait on the answer.
    """

    def __init__(
        self, context: ssl.SSLContext, url: str, question: SignedQuestion, timeout_s: float
    ) -> None:
        self._wires = Wires()
        self._session = open_session(context, urlsplit(url).hostname, self._wires)
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._outcome: Reply | Exception | None = None
        self._thread = threading.Thread(
            target=self._run, args=(url, question, timeout_s), name="webhook", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Cut what is under way; a thread in a name lookup ends by itself, or with the process."""
        self._wires.cut()
        self._session.close()
        self._thread.join(0.5)
        if not self._thread.is_alive():  # else it could ring whatever has the number by then
            os.close(self._bell)

    def fileno(self) -> int:
        """Return the descriptor for the poller."""
        return self._bell

    def result(self) -> Reply | None:
        """Return the reply, None while there is none.

        Raises:
            TryAgainError: The other side could not be reached, or did not finish.
            MalformedMessageError: It answered too much, or something HTTP does not know.
        """
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    def _run(self, url: str, question: SignedQuestion, timeout_s: float) -> None:
        try:
            self._outcome = self._exchange(url, question, timeout_s)
        except requests.RequestException as error:
            self._outcome = TryAgainError(f"{type(error).__name__}: {str(error)[-160:]}")
        except MeshError as error:
            self._outcome = error
        except Exception as error:  # noqa: BLE001 (a thread's outermost frame: it travels on)
            # Whatever an answer did to the HTTP library, it was no decision.
            self._outcome = MalformedMessageError(f"the call failed: {type(error).__name__}")
        with contextlib.suppress(OSError):
            os.eventfd_write(self._bell, 1)

    def _exchange(self, url: str, question: SignedQuestion, timeout_s: float) -> Reply:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": "certmesh",
            **question.headers,
        }
        with self._session.post(
            url,
            data=question.body,
            headers=headers,
            timeout=(min(timeout_s, CONNECT_S_MAX), timeout_s),
            allow_redirects=False,
            stream=True,
        ) as response:
            body = bytearray()
            for chunk in response.iter_content(CHUNK_BYTES):
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise MalformedMessageError(
                        f"the answer is larger than {ANSWER_BYTES_MAX} bytes"
                    )
            signature = response.headers.get(SIGNATURE_HEADER, "")
            return Reply(response.status_code, bytes(body), signature)
