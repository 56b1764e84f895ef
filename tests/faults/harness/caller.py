"""One HTTP request of somebody outside the pool, seen raw: what came back is judged, not believed.

Unlike the callers of the product these do not turn a broken answer into an error of their own: a
page of HTML, a refusal without a code or silence are findings.
"""

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from broker.clock import boottime_ms
from broker.errors import ErrorCode
from broker.wire.mesh_api import Problem
from workers.problem import PROBLEM_TYPE

DEADLINE_S = 30.0
"""A client hangs up after this; no door of ours may keep anybody that long."""
CONNECT_S = 5.0
ANSWER_BYTES_MAX = 8 * 1024 * 1024
OK_STATUSES = range(200, 300)
SHOWN = 160

Outcome = Literal["done", "refused", "unknown", "wrong"]


@dataclass(frozen=True, slots=True)
class Door:
    """Where and as whom to ask: a TCP address with a TLS context, or a Unix socket."""

    node: str
    address: tuple[str, int] = ("", 0)
    context: ssl.SSLContext | None = None
    server_name: str = ""
    path: Path | None = None

    def dial(self) -> socket.socket:
        """Return a connection, with TLS where the door has it; raises OSError."""
        if self.path is not None:
            plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            plain.settimeout(DEADLINE_S)
            try:
                plain.connect(str(self.path))
            except OSError:
                plain.close()
                raise
            return plain
        plain = socket.create_connection(self.address, timeout=CONNECT_S)
        plain.settimeout(DEADLINE_S)
        if self.context is None:
            return plain
        try:
            return self.context.wrap_socket(plain, server_hostname=self.server_name)
        except BaseException:
            plain.close()
            raise


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked; `headers` come on top of the usual ones."""

    method: str
    path: str
    body: msgspec.Struct | None = None
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one request.

    Attributes:
        outcome: `done`, `refused` with a code, `unknown` (the connection was lost), or `wrong`.
        code: Of the refusal; empty otherwise.
        text: Body of what was done, or why it is not.
        took_ms: From dialling to the last octet.
    """

    outcome: Outcome
    code: str
    text: bytes
    took_ms: int


def ask(door: Door, question: Question, deaf_s: float = 0.0) -> Reply:
    """Return what became of one request on a connection of its own; never raises OSError.

    Args:
        door: Whom to ask.
        question: What.
        deaf_s: Hang up so long after asking, without a look at the answer; 0 to hear it.
    """
    began_ms = boottime_ms()
    try:
        status, media, raw = _exchange(door, question, deaf_s)
    except (OSError, http.client.HTTPException) as error:
        took_ms = boottime_ms() - began_ms
        why = f"{type(error).__name__}: {error}"[:SHOWN].encode()
        if took_ms >= DEADLINE_S * 1000:
            return Reply("wrong", "", b"hung: " + why, took_ms)
        return Reply("unknown", "", why, took_ms)
    outcome, code, text = judge(status, media, raw)
    return Reply(outcome, code, text, boottime_ms() - began_ms)


def judge(status: int, media: str, raw: bytes) -> tuple[Outcome, str, bytes]:
    """Return outcome, code and text of an HTTP answer. Sans-IO.

    A refusal is a problem document with a code of ours, a reason, and the status it came with;
    `internal` says that a bug of ours was hit.
    """
    if status in OK_STATUSES:
        return "done", "", raw
    try:
        problem = msgspec.json.decode(raw, type=Problem)
        code = ErrorCode(problem.code)
    except (msgspec.MsgspecError, ValueError):
        return "wrong", "", f"status {status} ({media}) says {raw[:SHOWN]!r}".encode()
    if media != PROBLEM_TYPE or problem.status != status or not problem.detail:
        return "wrong", code.value, f"status {status} ({media}) with {problem}".encode()
    if code is ErrorCode.INTERNAL:
        return "wrong", code.value, problem.detail.encode()
    return "refused", code.value, problem.detail.encode()


def _exchange(door: Door, question: Question, deaf_s: float) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection(door.server_name or "localhost")
    body = b"" if question.body is None else msgspec.json.encode(question.body)
    headers = {"Accept": "application/json", **(question.headers or {})}
    if body:
        headers["Content-Type"] = "application/json"
    connection.sock = door.dial()
    try:
        connection.request(question.method, question.path, body=body or None, headers=headers)
        if deaf_s:
            threading.Event().wait(deaf_s)
            raise ConnectionError("the answer was lost on its way")
        answer = connection.getresponse()
        raw = answer.read(ANSWER_BYTES_MAX)
        return answer.status, answer.headers.get_content_type(), raw
    finally:
        connection.close()
