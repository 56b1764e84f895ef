"""The program around a join: order on standard input, lines of JSON on standard output."""

import select
import sys
from typing import Any

import msgspec

from broker.errors import MeshError, SettingsError, StorageError
from broker.runtime.exits import Exit
from broker.runtime.logs import setup_logs
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.runtime.stop import StopSignal
from workers.enroll.joining import Joining
from workers.enroll.leaving import Leaving
from workers.enroll.logic import exit_of, read_order

ORDER_BYTES_MAX = 65_536


def enroll(settings: Settings, paths: Paths) -> int:
    """Join or leave as standard input says, tell the outcome, and return the exit status."""
    setup_logs(settings, "enroll", stream=sys.stderr)
    raw = sys.stdin.buffer.read(ORDER_BYTES_MAX)
    with StopSignal() as stop:
        joining = Joining(settings, paths, emit, lambda wait_ms: _stopped(stop, wait_ms))
        try:
            order = read_order(raw)
            if order.leave:
                return Leaving(paths, emit).run(order.primary)
            return joining.run(order)
        except SettingsError:
            raise
        except MeshError as error:
            return _fault(error)
        except OSError as error:
            return _fault(StorageError(f"cannot write to {paths.data}: {error}"))


def emit(line: dict[str, Any]) -> None:
    """Write one line of the answer at once."""
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()


def _fault(error: MeshError) -> Exit | int:
    line = {"kind": "fault", "code": error.code.value, "detail": error.detail, "hint": error.hint}
    emit(line)
    return exit_of(error)


def _stopped(stop: StopSignal, wait_ms: int) -> bool:
    poller = select.poll()
    poller.register(stop.fileno(), select.POLLIN)
    poller.poll(wait_ms)
    return stop.requested()
