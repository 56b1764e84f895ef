"""Stop signals as a readable descriptor.

A poll that a signal interrupts resumes its full timeout when the signal only sets a flag
(measured with pyzmq), so the signal must arrive as a descriptor in the poller. The first SIGTERM or
SIGINT asks; the second one leaves at once.
"""

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

from broker.runtime.exits import Exit

_ASKING = (signal.SIGTERM, signal.SIGINT)
_Disposition = Callable[[int, FrameType | None], Any] | int | None


class StopSignal:
    """Context manager: readable from the first stop signal on. Main thread only."""

    def __init__(self) -> None:
        self._requested = False
        self._previous: dict[signal.Signals, _Disposition] = {}
        self._previous_wakeup = -1
        self._reader, self._writer = socket.socketpair()
        self._reader.settimeout(0)
        self._writer.settimeout(0)

    def __enter__(self) -> Self:
        self._previous_wakeup = signal.set_wakeup_fd(
            self._writer.fileno(), warn_on_full_buffer=False
        )
        for number in _ASKING:
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
        signal.set_wakeup_fd(self._previous_wakeup)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """Return the descriptor for the poller; it stays readable once a stop was asked."""
        return self._reader.fileno()

    def requested(self) -> bool:
        """Return whether the process was asked to stop.

        Also empties the descriptor of signals that ask nothing (SIGCHLD of a hook), which would
        otherwise keep every later poll from waiting.
        """
        if not self._requested:
            with contextlib.suppress(BlockingIOError):
                self._reader.recv(512)
        return self._requested

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._requested:
            os._exit(Exit.INTERRUPTED)
        self._requested = True
        # One more byte: `requested` may just have taken the one of the interpreter.
        with contextlib.suppress(BlockingIOError):
            self._writer.send(b"\0")
