"""A blocking call in a thread of its own, so that nobody waits who has something else to do.

A call that is given up is cut: its thread ends, however slowly the other side drips.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from workers.wires import Wires

R = TypeVar("R")
LAST_S = 0.5
"""How long a call that was cut may take to end."""


class Outcall(Generic[R]):
    """A call under way; `fileno` is readable when it has ended and `result` may be asked.

    Args:
        call: What to do; it notes the connections it opens in the wires it is given.
        name: Of the thread.
    """

    def __init__(self, call: Callable[[Wires], R], name: str) -> None:
        self._call = call
        self._wires = Wires()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._result: R | None = None
        self._error: Exception | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin; `close` has to follow."""
        self._thread.start()

    def cut(self) -> None:
        """End the call at its next word to the other side, without waiting for that."""
        self._wires.cut()

    def close(self) -> None:
        """Cut what is under way; a thread in a name lookup ends by itself, or with the process."""
        self.cut()
        self._thread.join(LAST_S)
        if not self._thread.is_alive():  # else it could ring whatever has the number by then
            os.close(self._bell)

    def fileno(self) -> int:
        """Return the descriptor for the poller."""
        return self._bell

    def has_ended(self) -> bool:
        """Whether there is a result or an error."""
        return self._ended

    def result(self) -> R | None:
        """Return the result, None while there is none, or raise the error of the call."""
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._call(self._wires)
        except Exception as error:  # noqa: BLE001 (a thread's outermost frame: it travels on)
            self._error = error
        self._ended = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._bell, 1)
