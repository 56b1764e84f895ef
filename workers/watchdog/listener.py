"""The event listener protocol of supervisord.

Crash-only: one stray byte wedges a listener for ever on supervisord's side, so any trouble with
the protocol ends this process, and supervisord starts a clean one.
Source: supervisor documentation, "Event Listener Notification Protocol".
"""

import os
from dataclasses import dataclass

READY = b"READY\n"
DONE = b"RESULT 2\nOK"
HEADER_BYTES_MAX = 4096
PAYLOAD_BYTES_MAX = 1_048_576
READ_BYTES = 65_536


class ProtocolError(Exception):
    """Supervisord sent something that is no event; start over with a new process."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One event: its name and the words of its payload's first line."""

    name: str
    words: dict[str, str]


class Feed:
    """Collects bytes from supervisord and gives back whole events."""

    def __init__(self) -> None:
        self._buffer = b""

    def receive(self, octets: bytes) -> list[Notice]:
        """Return the events completed by `octets`.

        Raises:
            ProtocolError: Not an event, or one of impossible size.
        """
        self._buffer += octets
        notices = []
        while (notice := self._next()) is not None:
            notices.append(notice)
        return notices

    def _next(self) -> Notice | None:
        head, newline, rest = self._buffer.partition(b"\n")
        if len(head) > HEADER_BYTES_MAX:
            raise ProtocolError("the header of an event has no end")
        if not newline:
            return None
        header = _words(head)
        length = _length(header)
        if len(rest) < length:
            return None
        self._buffer = rest[length:]
        return Notice(header["eventname"], _words(rest[:length].partition(b"\n")[0]))


class Listener:
    """Keeps supervisord's event channel flowing; events are only hints to look."""

    def __init__(self, source: int, sink: int) -> None:
        self.source = source
        self._sink = sink
        self._feed = Feed()

    def begin(self) -> None:
        """Tell supervisord that events are welcome."""
        os.write(self._sink, READY)

    def take(self) -> tuple[Notice, ...]:
        """Take and acknowledge what is there; return the events among it.

        Raises:
            ProtocolError: Supervisord is gone, or sent something that is no event.
        """
        octets = os.read(self.source, READ_BYTES)
        if not octets:
            raise ProtocolError("supervisord closed the event channel")
        notices = self._feed.receive(octets)
        for _ in notices:
            os.write(self._sink, DONE + READY)
        return tuple(notices)


def _length(header: dict[str, str]) -> int:
    text = header.get("len", "")
    if not (text.isascii() and text.isdecimal()) or "eventname" not in header:
        raise ProtocolError(f"not the header of an event: {header}")
    if int(text) > PAYLOAD_BYTES_MAX:
        raise ProtocolError(f"an event of {text} bytes")
    return int(text)


def _words(line: bytes) -> dict[str, str]:
    pairs = (word.partition(":") for word in line.decode(errors="replace").split())
    return {name: value for name, colon, value in pairs if colon}
