"""One HTTPS POST of a question, see `workers.webcall`; a call that is given up is cut."""

import contextlib
import ssl
from typing import Self

import requests

from broker.errors import MalformedMessageError, MeshError
from workers.approval.dialogue import SIGNATURE_HEADER, SignedQuestion, TryAgainError
from workers.outcall import Outcall
from workers.webcall import WebReply, post_web, web_session
from workers.wires import Wires


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
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            **question.headers,
        }

        def exchange(wires: Wires) -> WebReply:
            with contextlib.closing(web_session(context, url, wires)) as session:
                return post_web(session, url, question.body, headers, timeout_s)

        self._call = Outcall(exchange, "webhook")

    def __enter__(self) -> Self:
        self._call.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._call.__exit__()

    def fileno(self) -> int:
        """Return the descriptor for the poller."""
        return self._call.fileno()

    def result(self) -> WebReply | None:
        """Return the reply, None while there is none.

        Raises:
            TryAgainError: The other side could not be reached, or did not finish.
            MalformedMessageError: It answered too much, or something HTTP does not know.
        """
        try:
            return self._call.result()
        except requests.RequestException as error:
            raise TryAgainError(f"{type(error).__name__}: {str(error)[-160:]}") from None
        except MeshError:
            raise
        except Exception as error:  # noqa: BLE001 (what an answer did to the library decides nothing)
            raise MalformedMessageError(f"the call failed: {type(error).__name__}") from None


def signature_of(reply: WebReply) -> str:
    """Return the signature header as it came, empty without one."""
    return reply.headers.get(SIGNATURE_HEADER.lower(), "")
