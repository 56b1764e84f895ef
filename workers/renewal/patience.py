"""A blocking call that leaves the worker alive: it goes on beating and obeys a stop.

The call runs in a thread of its own and touches nothing else meanwhile. A worker that is frozen in
it is therefore noticed as quickly as any other, and a stop is not held up by a slow peer.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from workers.process import Desk

LAST_MS = 300
"""How long a call may still take once a stop was asked."""

R = TypeVar("R")


class StoppedError(Exception):
    """A stop was asked; the work goes back undone."""


def patiently(desk: Desk, call: Callable[[], R]) -> R:
    """Return what `call` returns, or raise what it raises.

    Raises:
        StoppedError: A stop was asked and the call did not end; its thread ends with the process.
    """
    if desk.stopping():
        raise StoppedError
    answer = _Answer(call)
    try:
        while not answer.is_there():
            if desk.stopping():
                answer.wait(LAST_MS)
                break
            desk.wait(desk.link.beat_every_ms, answer.descriptor)
        if not answer.is_there():
            raise StoppedError
        return answer.get()
    finally:
        answer.close()


class _Answer(Generic[R]):
    """The future of one call, with a descriptor for the poller."""

    def __init__(self, call: Callable[[], R]) -> None:
        self._call = call
        self._result: R | None = None
        self._error: BaseException | None = None
        self._reader, self._writer = os.pipe()
        self._thread = threading.Thread(target=self._run, name="call", daemon=True)
        self._thread.start()

    @property
    def descriptor(self) -> int:
        """Readable once the call has ended."""
        return self._reader

    def is_there(self) -> bool:
        """Return whether the call has ended."""
        return not self._thread.is_alive()

    def wait(self, wait_ms: int) -> None:
        """Wait for the end of the call."""
        self._thread.join(wait_ms / 1000)

    def get(self) -> R:
        """Return the result or raise the error of the ended call."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # set when there is no error

    def close(self) -> None:
        """Close the descriptors; an abandoned call keeps its own."""
        os.close(self._reader)

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:  # noqa: BLE001 (raised again in the thread that waits)
            self._error = error
        finally:
            with contextlib.suppress(OSError):
                os.close(self._writer)
