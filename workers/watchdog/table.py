"""Supervisord's process table over XML-RPC on its Unix socket.

One connection per call (0.4 ms): a kept one breaks when supervisord restarts. Every call has a
deadline, for the watchdog must never hang.
"""

from pathlib import Path
from typing import Any

from broker.errors import UnavailableError
from workers.watchdog import xmlrpc
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

    def _call(self, method: str, *arguments: str | bool) -> Any:
        try:
            return xmlrpc.call(self._path, method, arguments, CALL_S_MAX)
        except xmlrpc.FaultError as fault:
            kind = StoppingError if fault.number == SHUTDOWN_STATE else UnavailableError
            raise kind(f"supervisord refused {method}: {fault}") from None
        except (OSError, ValueError) as error:
            raise UnavailableError(f"supervisord does not answer: {error}") from None


def _row(raw: dict[str, Any]) -> Row:
    return Row(
        program=str(raw["name"]),
        group=str(raw["group"]),
        pid=int(raw["pid"]),
        state=str(raw["statename"]),
        exit_status=int(raw["exitstatus"]),
    )
