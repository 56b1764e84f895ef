"""Supervisord's process table over XML-RPC on its Unix socket.

One connection per call (0.4 ms): a kept one breaks when supervisord restarts. Every call has a
deadline, for the watchdog must never hang.
"""

import http.client
import socket
import xmlrpc.client
from pathlib import Path
from typing import Any

from broker.errors import UnavailableError
from workers.watchdog.logic import Row

CALL_S_MAX = 2.0
SHUTDOWN_STATE = 6
"""Supervisord's fault for every call while it shuts down or restarts."""


class StoppingError(UnavailableError):
    """Supervisord is shutting down: nothing is to be judged or repaired any more."""


class Table:
    """Reads the table and starts programs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rows(self) -> tuple[Row, ...]:
        """Return all processes.

        Raises:
            StoppingError: Supervisord is shutting down.
            UnavailableError: Supervisord does not answer.
        """
        return tuple(_row(raw) for raw in self._call("supervisor.getAllProcessInfo"))

    def start(self, row: Row) -> None:
        """Start a program, without waiting for it; raises as `rows`."""
        self._call("supervisor.startProcess", row.address, False)  # noqa: FBT003 (XML-RPC has no names)

    def _call(self, method: str, *arguments: Any) -> Any:
        connection = _Connection(self._path)
        body = xmlrpc.client.dumps(arguments, method)
        try:
            connection.request("POST", "/RPC2", body, {"Content-Type": "text/xml"})
            answer = connection.getresponse().read()
            (result,), _ = xmlrpc.client.loads(answer)
        except xmlrpc.client.Fault as fault:
            kind = StoppingError if fault.faultCode == SHUTDOWN_STATE else UnavailableError
            raise kind(f"supervisord refused {method}: {fault.faultString}") from None
        except (OSError, http.client.HTTPException, ValueError, xmlrpc.client.Error) as error:
            raise UnavailableError(f"supervisord does not answer: {error}") from None
        finally:
            connection.close()
        return result


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=CALL_S_MAX)
        self._path = path

    def connect(self) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CALL_S_MAX)
        self.sock.connect(str(self._path))


def _row(raw: dict[str, Any]) -> Row:
    return Row(
        program=str(raw["name"]),
        group=str(raw["group"]),
        pid=int(raw["pid"]),
        state=str(raw["statename"]),
        exit_status=int(raw["exitstatus"]),
    )
