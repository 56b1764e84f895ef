"""The open connections of one session, so that another thread can end what waits on them.

A blocked read cannot be told to stop; its socket can be shut down, and the read then ends with an
error. Connections are noted when they are made and forgotten when they are closed.
"""

import contextlib
import socket
import threading
from typing import Protocol

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool


class Wire(Protocol):
    """A connection of any protocol; `sock` is its socket while it is open."""

    @property
    def sock(self) -> object:
        """The socket, or whatever stands for none."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Wires:
    """Connections of one session; all methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[Wire] = set()
        self._is_cut = False

    def pool(self) -> type[HTTPSConnectionPool]:
        """Return a kind of connection pool whose connections are noted here."""
        wires = self

        class Connection(HTTPSConnection):
            def connect(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
                super().connect()
                wires.note(self)

            def close(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
                wires.forget(self)
                super().close()

        class Pool(HTTPSConnectionPool):
            ConnectionCls = Connection

        return Pool

    def plain_pool(self) -> type[HTTPConnectionPool]:
        """Return the same without TLS, for programs on this machine."""
        wires = self

        class Connection(HTTPConnection):
            def connect(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
                super().connect()
                wires.note(self)

            def close(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
                wires.forget(self)
                super().close()

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        return Pool

    def note(self, connection: Wire) -> None:
        """Note a connection that was made just now.

        Raises:
            ConnectionAbortedError: Everything was cut meanwhile; the connection is closed.
        """
        with self._lock:
            if not self._is_cut:
                self._open.add(connection)
                return
        connection.close()
        raise ConnectionAbortedError("the call was broken off")

    def forget(self, connection: Wire) -> None:
        """Forget a connection that is being closed."""
        with self._lock:
            self._open.discard(connection)

    def cut(self) -> None:
        """End every call under way, and every later one, for good."""
        with self._lock:
            self._is_cut = True
            for connection in self._open:
                _shut_down(connection)


def _shut_down(connection: Wire) -> None:
    wire = connection.sock
    with contextlib.suppress(OSError):
        if isinstance(wire, socket.socket):
            # Not the method of the TLS socket: it would take the session away from its reader.
            socket.socket.shutdown(wire, socket.SHUT_RDWR)
