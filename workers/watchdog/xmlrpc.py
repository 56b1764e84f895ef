"""As much XML-RPC as supervisord speaks on its Unix socket.

The standard library's client brings HTTP, TLS and mail parsing along: 2.5 MB in a process that
must stay small. One connection per call, HTTP/1.0: the answer ends with the connection.

Source: http://xmlrpc.com/spec.md.
"""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

ANSWER_BYTES_MAX = 1_048_576
READ_BYTES = 65_536
OK = b"200"


class FaultError(Exception):
    """Supervisord answered that it would not; `number` is one of its fault codes."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


def call(path: Path, method: str, arguments: tuple[str | bool, ...], timeout_s: float) -> Any:
    """Return what `method` returns.

    Args:
        path: The Unix socket.
        method: Dotted name.
        arguments: Texts and truth values, all that is needed here.
        timeout_s: For each wait.

    Raises:
        FaultError: The method was refused.
        OSError: Nobody answers.
        ValueError: The answer is not XML-RPC.
    """
    answer = _exchange(path, _request(method, arguments), timeout_s)
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.split(b" ", 2)[1:2] != [OK]:
        raise ValueError(f"status line {head[:80]!r}")
    try:
        return _result(ET.fromstring(body))  # noqa: S314 (supervisord's own words)
    except (ET.ParseError, TypeError, IndexError) as error:
        raise ValueError(f"not an XML-RPC answer: {error}") from None


def _request(method: str, arguments: tuple[str | bool, ...]) -> bytes:
    params = "".join(f"<param><value>{_typed(one)}</value></param>" for one in arguments)
    body = (
        f"<methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>"
    ).encode()
    head = f"POST /RPC2 HTTP/1.0\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _typed(argument: str | bool) -> str:  # noqa: FBT001 (a value, not a switch)
    if isinstance(argument, bool):
        return f"<boolean>{argument:d}</boolean>"
    text = argument.replace("&", "&amp;").replace("<", "&lt;")
    return f"<string>{text}</string>"


def _exchange(path: Path, request: bytes, timeout_s: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(request)
        answer = bytearray()
        for chunk in _chunks(connection):
            answer += chunk
            if len(answer) > ANSWER_BYTES_MAX:
                raise ValueError("the answer is too long")
        return bytes(answer)


def _chunks(connection: socket.socket) -> Iterator[bytes]:
    while chunk := connection.recv(READ_BYTES):
        yield chunk


def _result(answer: ET.Element) -> Any:
    fault = answer.find("fault/value")
    if fault is not None:
        told = _value(fault)
        raise FaultError(int(told["faultCode"]), str(told["faultString"]))
    result = answer.find("params/param/value")
    if result is None:
        raise ValueError("neither a result nor a fault")
    return _value(result)


def _value(value: ET.Element) -> Any:
    if not len(value):  # a value without a type is a string
        return value.text or ""
    typed = value[0]
    match typed.tag:
        case "int" | "i4":
            return int(typed.text or "")
        case "boolean":
            return typed.text == "1"
        case "array":
            return [_value(one) for one in typed.iterfind("data/value")]
        case "struct":
            return {member.findtext("name"): _value(member[1]) for member in typed}
        case _:
            return typed.text or ""
