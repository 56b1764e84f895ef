"""The watchdog's own XML-RPC against the standard library's idea of it."""

import contextlib
import socket
import threading
import xmlrpc.client
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.runtime.paths import Paths
from workers.watchdog.xmlrpc import FaultError, call

TABLE = [
    {"name": "a<b&c", "group": "g", "pid": 17, "statename": "RUNNING", "exitstatus": -1},
    {"name": "", "group": "g", "pid": 0, "statename": "STOPPED", "exitstatus": 0, "spawnerr": ""},
]


@contextmanager
def answering(path: Path, answer: Callable[[bytes], bytes]) -> Iterator[None]:
    """Answer one connection at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            guest, _ = listener.accept()
            with guest:
                asked = b""
                while not asked.endswith(b"</methodCall>"):
                    asked += guest.recv(65_536)
                with contextlib.suppress(BrokenPipeError):  # who hears too much hangs up
                    guest.sendall(answer(asked.partition(b"\r\n\r\n")[2]))

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(5)


def ok(body: str) -> bytes:
    """Return an answer as supervisord sends it."""
    return b"HTTP/1.0 200 OK\r\nContent-Type: text/xml\r\n\r\n" + body.encode()


@pytest.mark.parametrize("result", [TABLE, [], True, "text", 4, [["x", 1], {"a": False}]])
def test_results_arrive_as_the_standard_library_would_read_them(paths: Paths, result: Any) -> None:
    """Every type that supervisord uses, and text that needs escaping."""
    answer = xmlrpc.client.dumps((result,), methodresponse=True)
    with answering(paths.supervisor_socket, lambda _: ok(answer)):
        assert call(paths.supervisor_socket, "m", (), 2.0) == result


def test_arguments_arrive_as_they_were_given(paths: Paths) -> None:
    """A program's name is the operator's, and may hold anything."""
    seen: list[Any] = []

    def note(asked: bytes) -> bytes:
        seen.append(xmlrpc.client.loads(asked.decode()))
        return ok(xmlrpc.client.dumps((True,), methodresponse=True))

    with answering(paths.supervisor_socket, note):
        call(paths.supervisor_socket, "supervisor.startProcess", ("a<b>&c:d", False), 2.0)
    assert seen == [(("a<b>&c:d", False), "supervisor.startProcess")]


def test_a_fault_is_raised_with_its_number(paths: Paths) -> None:
    """Six means that supervisord shuts down: nothing is to be repaired then."""
    fault = xmlrpc.client.dumps(xmlrpc.client.Fault(6, "SHUTDOWN_STATE"))
    with (
        answering(paths.supervisor_socket, lambda _: ok(fault)),
        pytest.raises(FaultError, match="SHUTDOWN_STATE") as caught,
    ):
        call(paths.supervisor_socket, "m", (), 2.0)
    assert caught.value.number == 6


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.0 500 Internal Server Error\r\n\r\nno",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n<methodResponse/>",
        b"HTTP/1.0 200 OK\r\n\r\n<methodResponse><params><param><value><int>x</int>",
        b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 1_100_000,
    ],
)
def test_an_answer_that_is_none_is_a_value_error(paths: Paths, answer: bytes) -> None:
    """The watchdog must survive whatever comes out of that socket."""
    with answering(paths.supervisor_socket, lambda _: answer), pytest.raises((ValueError, OSError)):
        call(paths.supervisor_socket, "m", (), 2.0)


def test_silence_is_an_os_error(paths: Paths) -> None:
    """Also nobody at all."""
    with pytest.raises(OSError, match="No such file"):
        call(paths.supervisor_socket, "m", (), 2.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(paths.supervisor_socket))
        deaf.listen(1)
        with pytest.raises(TimeoutError):
            call(paths.supervisor_socket, "m", (), 0.1)
