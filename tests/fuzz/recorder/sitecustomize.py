"""Gets into every Python process of a node by PYTHONPATH and keeps what crosses its borders.

What goes into TLS and comes out of it, and every ZeroMQ frame, as plain octets in files of the
directory `CERTMESH_TEST_RECORD`: what an eavesdropper inside each peer would see. The product knows
nothing of it.
"""

import os
import ssl
from typing import Any

PLACE = os.environ.get("CERTMESH_TEST_RECORD", "")


def keep(kind: str, octets: Any) -> None:
    """Append what went by; a missing directory ends the recording, not the process."""
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        descriptor = os.open(f"{PLACE}/{kind}-{os.getpid()}", flags, 0o600)
        os.write(descriptor, bytes(octets))
        os.close(descriptor)
    except (OSError, TypeError, ValueError):
        return


def watch_writing(owner: Any, name: str, kind: str) -> None:
    """Record the first argument of a method."""
    real = getattr(owner, name)

    def recorded(self: Any, octets: Any, *more: Any, **named: Any) -> Any:
        keep(kind, octets)
        return real(self, octets, *more, **named)

    setattr(owner, name, recorded)


def watch_reading(owner: Any, name: str, kind: str) -> None:
    """Record what a method returns, or puts into the buffer that it was given."""
    real = getattr(owner, name)

    def recorded(self: Any, *given: Any, **named: Any) -> Any:
        found = real(self, *given, **named)
        buffer = given[1] if len(given) > 1 else named.get("buffer")
        if isinstance(found, int) and buffer is not None:
            keep(kind, memoryview(buffer)[:found])
        elif not isinstance(found, int):
            keep(kind, getattr(found, "bytes", found))
        return found

    setattr(owner, name, recorded)


def begin() -> None:
    """Put the recorder under the libraries."""
    for owner in (ssl.SSLObject, ssl.SSLSocket):
        watch_writing(owner, "write", "tls")
        watch_reading(owner, "read", "tls")
    watch_writing(ssl.SSLSocket, "send", "tls")
    try:
        from zmq.sugar.socket import Socket  # noqa: PLC0415 (not every process has it)
    except ImportError:
        return
    watch_writing(Socket, "send", "zmq")
    watch_reading(Socket, "recv", "zmq")


if PLACE:
    begin()
