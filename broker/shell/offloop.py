"""Slow work off the loop: one thread, completions handed back through a descriptor.

Key derivation costs a fifth of a second; the loop must not notice.
"""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from broker.shell.batch import Batch

Job = Callable[[], Any]
Then = Callable[[Batch, Any], None]

QUEUE_MAX = 16
"""More waiting derivations than this are refused."""


class OffLoop:
    """Runs callables in one daemon thread and returns their outcomes to the loop.

    `descriptor` becomes readable when `finished` has something. An exception is an outcome like
    any other.
    """

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._jobs: queue.Queue[tuple[Job, Then]] = queue.Queue(QUEUE_MAX)
        self._done: deque[tuple[Then, Any]] = deque()
        threading.Thread(target=self._work, name="offloop", daemon=True).start()

    def submit(self, job: Job, then: Then) -> bool:
        """Run `job` in the thread, `then(batch, outcome)` in the loop; False when full."""
        try:
            self._jobs.put_nowait((job, then))
        except queue.Full:
            return False
        return True

    def finished(self) -> list[tuple[Then, Any]]:
        """Return the completions that arrived, for the loop to call."""
        try:
            os.eventfd_read(self.descriptor)
        except BlockingIOError:
            return []
        return [self._done.popleft() for _ in range(len(self._done))]

    def put_back(self, rest: list[tuple[Then, Any]]) -> None:
        """Keep completions that this drain could not take for the next one."""
        if rest:
            self._done.extendleft(reversed(rest))
            os.eventfd_write(self.descriptor, 1)

    def _work(self) -> None:
        while True:
            job, then = self._jobs.get()
            try:
                outcome = job()
            except Exception as error:  # noqa: BLE001 (outcome of somebody else's code)
                outcome = error
            self._done.append((then, outcome))
            os.eventfd_write(self.descriptor, 1)
