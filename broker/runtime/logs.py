"""Log lines: JSON for collectors, one short line for people; never in the way of the work.

A line is constant text (`EventName`) plus fields. Values come from hostile places (host names,
request bodies), so everything unprintable is escaped and everything long is cut. A pipe that
nobody drains must not stop a process: when it is full the line is dropped, and the next line that
gets through says how many were lost.
"""

import contextlib
import logging
import os
import select
import socket
import stat
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Protocol

from pythonjsonlogger.core import LogData
from pythonjsonlogger.msgspec import MsgspecFormatter

from broker.runtime.events import ERRORS, WARNINGS, EventName
from broker.runtime.settings import Settings

VALUE_CHARACTERS_MAX = 2048
TRACE_CHARACTERS_MAX = 16_384
PIPE_BYTES = 4096
"""PIPE_BUF on Linux: a pipe that polls writable takes this many bytes without blocking."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_SHORT = {10: "DEBUG", 20: "INFO ", 30: "WARN ", 40: "ERROR", 50: "ERROR"}
_logger = logging.getLogger("certmesh")


class Target(Protocol):
    """Where lines go: anything with a file descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""
        ...


def setup_logs(
    settings: Settings, service: str, *, stream: Target | None = None, instance: str = ""
) -> None:
    """Send all logging of this process to `stream`, standard output by default.

    Args:
        settings: `[log]` and the node's name.
        service: The process's own name, used when `instance` is empty.
        stream: Another target; the watchdog must not write to standard output.
        instance: Name among the processes of one service; supervisord's word by default.
    """
    target = sys.stdout if stream is None else stream
    worker = instance or os.environ.get("SUPERVISOR_PROCESS_NAME") or service
    base = {"node": settings.node.name or socket.gethostname(), "worker": worker}
    lines = LineWriter(target)
    lines.setFormatter(_formatter(settings, target, base))
    root = logging.getLogger()
    root.handlers[:] = [lines]
    # Libraries speak up only when something is wrong; our own words obey the setting.
    root.setLevel(max(_LEVELS[settings.log.level], logging.WARNING))
    _logger.setLevel(_LEVELS[settings.log.level])
    logging.raiseExceptions = False


def log(event: EventName, *, level: str | int | None = None, **fields: Any) -> None:
    """Write one line; `level` defaults to what the event usually means.

    Fields named `request_id` and `term` lead the others. Never pass secrets, keys or CSR bodies.
    """
    number = _LEVELS[level] if isinstance(level, str) else level or _usual_level(event)
    if _logger.isEnabledFor(number):
        _logger.log(number, {"event": event.value, **fields})


def log_crash(error: BaseException) -> None:
    """Write the traceback of an unexpected exception, before the process exits 1."""
    trace = "".join(traceback.format_exception(error))[-TRACE_CHARACTERS_MAX:]
    if logging.getLogger().handlers:
        _logger.error({"event": EventName.PROCESS_CRASHED.value, "traceback": trace})
    else:
        sys.stderr.write(trace)


def printable(value: object, limit: int = VALUE_CHARACTERS_MAX) -> object:
    """Return `value` fit for a log line: cut to `limit`, unprintable characters escaped."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return [printable(item, limit) for item in list(value)[:100]]
    text = value.hex() if isinstance(value, bytes) else str(value)
    return escaped(text[:limit])


def escaped(text: str) -> str:
    r"""Return `text` with every unprintable character as `\xNN`, `\uNNNN`, or `\n`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class JSONLines(MsgspecFormatter):
    """One JSON object a line: ts, level, event, node, worker, pid, request_id, term, fields."""

    def __init__(self, base: dict[str, str]) -> None:
        super().__init__([])
        self._base = base

    def add_fields(  # type: ignore[explicit-override]  # typing.override is 3.12
        self, log_data: LogData, record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Fill `log_data` in the documented order."""
        fields = _fields(record)
        moment = datetime.fromtimestamp(record.created, tz=UTC)
        log_data["ts"] = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        log_data["level"] = record.levelname.lower()
        log_data["event"] = fields.pop("event")
        log_data.update(self._base)
        log_data["pid"] = record.process
        for name in ("request_id", "term"):
            if name in fields:
                log_data[name] = fields.pop(name)
        trace = message_dict.get("traceback")
        log_data.update(fields)
        if trace is not None:
            log_data["traceback"] = trace


class ConsoleLines(logging.Formatter):
    """`12:04:11 WARN  hooks     hook.failed  host=pi-4 exit=1`: for people at a terminal."""

    def __init__(self, base: dict[str, str]) -> None:
        super().__init__()
        self._worker = base["worker"]

    def format(self, record: logging.LogRecord) -> str:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Return the line, and the traceback below it when there is one."""
        fields = _fields(record)
        moment = datetime.fromtimestamp(record.created).astimezone()
        event = fields.pop("event")
        trace = record.msg.get("traceback") if isinstance(record.msg, dict) else None
        fields.pop("traceback", None)
        tail = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items())
        head = f"{moment:%H:%M:%S} {_SHORT.get(record.levelno, 'INFO ')} {self._worker:<9} {event}"
        below = f"\n{trace.rstrip()}" if trace else ""
        return (f"{head}  {tail}" if tail else head) + below


class LineWriter(logging.Handler):
    """Writes lines to a descriptor and never waits for a reader."""

    def __init__(self, target: Target) -> None:
        super().__init__()
        self._target = target
        self._lost = 0
        self._torn = False

    def emit(self, record: logging.LogRecord) -> None:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Write one line, or count it as lost."""
        if self._lost and isinstance(record.msg, dict):
            record.msg = {**record.msg, "lost": self._lost}
        line = ("\n" if self._torn else "") + self.format(record) + "\n"
        if self._write(line.encode(errors="backslashreplace")):
            self._lost = 0
        else:
            self._lost += 1

    def _write(self, line: bytes) -> bool:
        # A full disk (ENOSPC) or a closed pipe (EPIPE) loses the line and nothing else.
        with contextlib.suppress(OSError, ValueError):
            descriptor = self._target.fileno()
            pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
            sent = _feed_pipe(descriptor, line) if pipe else os.write(descriptor, line)
            self._torn = 0 < sent < len(line) or (self._torn and sent == 0)
            return sent == len(line)
        return False


def _feed_pipe(descriptor: int, line: bytes) -> int:
    poller = select.poll()
    poller.register(descriptor, select.POLLOUT)
    sent = 0
    while sent < len(line) and poller.poll(0):
        sent += os.write(descriptor, line[sent : sent + PIPE_BYTES])
    return sent


def _formatter(settings: Settings, target: Target, base: dict[str, str]) -> logging.Formatter:
    form = settings.log.format
    if form == "auto":
        form = "console" if _is_terminal(target) else "json"
    return ConsoleLines(base) if form == "console" else JSONLines(base)


def _is_terminal(target: Target) -> bool:
    try:
        return os.isatty(target.fileno())
    except (OSError, ValueError):
        return False


def _usual_level(event: EventName) -> int:
    if event in ERRORS:
        return logging.ERROR
    return logging.WARNING if event in WARNINGS else logging.INFO


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of our own record, or a library's text as `library.spoke`."""
    if isinstance(record.msg, dict):
        return {str(name): printable(value) for name, value in record.msg.items()}
    fields: dict[str, Any] = {"event": "library.spoke", "library": record.name}
    fields["text"] = printable(record.getMessage())
    if record.exc_info:
        fields["traceback"] = printable("".join(traceback.format_exception(*record.exc_info)))
    return fields


def _quoted(value: object) -> str:
    text = str(value)
    if text and not set(text) & set(" \"'="):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
