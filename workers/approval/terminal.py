"""A person's terminal: write, forget what was typed too early, read a line without blocking."""

import errno
import os
import termios
from pathlib import Path
from typing import Self

CONTROLLING = Path("/dev/tty")
LINE_BYTES_MAX = 256


class TerminalGoneError(Exception):
    """The person closed the terminal or ended the input."""


class Terminal:
    """One open terminal; a description of its own, so that nobody else's flags change.

    Raises:
        OSError: There is no terminal, or this process is in its background and would be stopped
            by the kernel (SIGTTIN) instead of getting an answer.
    """

    def __init__(self, path: Path = CONTROLLING) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._typed = b""
        if not _may_read(self._fd):
            os.close(self._fd)
            raise OSError(errno.ENOTTY, "not in the foreground of a terminal")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def fileno(self) -> int:
        """Return the descriptor for the poller."""
        return self._fd

    def write(self, text: str) -> None:
        """Show text.

        Raises:
            TerminalGoneError: Nobody is there any more.
        """
        left = text.encode(errors="replace")
        try:
            while left:
                left = left[os.write(self._fd, left) :]
        except BlockingIOError:
            return  # output is stopped (Ctrl-S): the rest is not worth a hang
        except OSError:
            raise TerminalGoneError from None

    def discard_typed(self) -> None:
        """Forget everything typed so far: it was not an answer to what is asked next.

        Raises:
            TerminalGoneError: Nobody is there any more.
        """
        self._typed = b""
        try:
            termios.tcflush(self._fd, termios.TCIFLUSH)
        except termios.error:
            raise TerminalGoneError from None

    def read_line(self) -> str | None:
        """Return the next complete line without its end, or None while there is none.

        Raises:
            TerminalGoneError: End of input.
        """
        try:
            typed = os.read(self._fd, LINE_BYTES_MAX)
        except BlockingIOError:
            return None
        except OSError:
            raise TerminalGoneError from None
        if not typed:
            raise TerminalGoneError
        self._typed = (self._typed + typed)[-LINE_BYTES_MAX:]
        line, end, rest = self._typed.partition(b"\n")
        if not end:
            return None
        self._typed = rest
        return line.decode(errors="replace")


def _may_read(fd: int) -> bool:
    if not os.isatty(fd):
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True  # not the controlling terminal, so job control does not apply
