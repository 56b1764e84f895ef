"""HTTP to this node's console over its Unix socket.

The kernel tells the console who calls; there is no password here. Answers are the JSON of the
broker's replies and are decoded into the same structs; refusals come back as `MeshError`.
"""

import http.client
import socket
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import msgspec

from broker.errors import (
    DeadlineError,
    ErrorCode,
    ForbiddenError,
    InternalError,
    MalformedMessageError,
    MeshError,
    OversizedMessageError,
    error_classes,
)
from broker.wire.mesh_api import Problem
from broker.wire.operator import OPERATOR_HEADER, check_operator_name

ANSWER_BYTES_MAX = 8 * 1024 * 1024
OK_STATUSES = range(200, 300)
RETRY_DIGITS_MAX = 9

R = TypeVar("R", bound=msgspec.Struct)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Dial the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Api:
    """The console of one node.

    Args:
        path: Its Unix socket.
        timeout_ms: Patience for one answer.
        silence: What to raise when nobody answers at all.
        operator: Who gives the orders, where the account is shared; empty when nobody said.

    Raises:
        MalformedMessageError: `operator` is no name.
    """

    def __init__(self, path: Path, timeout_ms: int, silence: MeshError, operator: str = "") -> None:
        self._path = path
        self._timeout_ms = timeout_ms
        self._silence = silence
        self._operator = check_operator_name(operator) if operator else ""

    def get(self, path: str, kind: type[R]) -> R:
        """Return the answer to a question."""
        return self.ask("GET", path, kind)

    def post(self, path: str, kind: type[R], body: msgspec.Struct | None = None) -> R:
        """Return the answer to an order."""
        return self.ask("POST", path, kind, body)

    def ask(self, method: str, path: str, kind: type[R], body: msgspec.Struct | None = None) -> R:
        """Return the console's answer.

        Raises:
            MeshError: The class of the problem's code; unavailable or no_mesh when nobody
                answers; timeout when the answer takes too long (the outcome is then unknown).
        """
        status, raw, retry_after = self._exchange(method, path, body)
        if status not in OK_STATUSES:
            raise problem_of(status, raw, retry_after)
        try:
            return msgspec.json.decode(raw, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedMessageError(
                f"the console's answer to {path} is not understood: {error}",
                hint="the command and the running node may be different releases: restart the node",
            ) from None

    def _exchange(
        self, method: str, path: str, body: msgspec.Struct | None
    ) -> tuple[int, bytes, str]:
        connection = UnixConnection(self._path, self._timeout_ms / 1000)
        content = b"" if body is None else msgspec.json.encode(body)
        headers: dict[str, str | bytes] = {"Accept": "application/json"}
        if content:
            headers["Content-Type"] = "application/json"
        if self._operator:
            headers[OPERATOR_HEADER] = self._operator.encode()
        try:
            connection.request(method, path, body=content or None, headers=headers)
            answer = connection.getresponse()
            raw = answer.read(ANSWER_BYTES_MAX + 1)
        except PermissionError:
            raise ForbiddenError(
                f"{self._path} belongs to another user",
                hint="run this as the user who runs the node, or as root",
            ) from None
        except TimeoutError:
            raise DeadlineError(
                f"the node did not answer {method} {path} within {self._timeout_ms / 1000:g} s",
                hint="ask again, with a longer --timeout if need be; the outcome is unknown",
            ) from None
        except (OSError, http.client.HTTPException):
            raise self._silence from None
        finally:
            connection.close()
        if len(raw) > ANSWER_BYTES_MAX:
            raise OversizedMessageError(f"the answer to {path} is over {ANSWER_BYTES_MAX} bytes")
        return answer.status, raw, answer.headers.get("Retry-After", "")


def segment(text: str) -> str:
    """Return `text` as one segment of a path: a name with `/` in it stays one name."""
    # A dot segment would be resolved away by the other side; nothing is named like that.
    return quote(text, safe="").replace(".", "%2E") if set(text) <= {"."} else quote(text, safe="")


def problem_of(status: int, raw: bytes, retry_after: str = "") -> MeshError:
    """Return the refusal in a problem document as the error its code names."""
    try:
        problem = msgspec.json.decode(raw, type=Problem)
        code = ErrorCode(problem.code)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return InternalError(f"the console answered {status} without saying why")
    hint = problem.hint
    if problem.primary is not None and not hint:
        hint = f"the primary is {problem.primary.host}: run it there"
    said = retry_after[:RETRY_DIGITS_MAX]
    wait_ms = int(said) * 1000 if said.isdecimal() else 0
    if wait_ms and not hint:
        hint = f"try again in {wait_ms // 1000} s"
    return error_classes()[code](problem.detail, hint=hint, retry_after_ms=wait_ms)
