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
        self._alone: set[str] = set()
        threading.Thread(target=self._work, name="offloop", daemon=True).start()

    def submit(self, job: Job, then: Then) -> bool:
        """Run `job` in the thread, `then(batch, outcome)` in the loop; False when full."""
        try:
            self._jobs.put_nowait((job, then))
        except queue.Full:
            return False
        return True

    def aside(self, job: Job, then: Then) -> None:
        """Run a job of seconds or minutes in a thread of its own: no unlock waits behind it."""
        threading.Thread(target=self._run, args=(job, then), name="aside", daemon=True).start()

    def alone(self, name: str, job: Job, then: Then) -> bool:
        """Run a job as `aside` does; False while another one of that name is running."""
        if name in self._alone:
            return False
        self._alone.add(name)

        def done(batch: Batch, outcome: Any) -> None:
            self._alone.discard(name)
            then(batch, outcome)

        self.aside(job, done)
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
            self._run(*self._jobs.get())

    def _run(self, job: Job, then: Then) -> None:
        try:
            outcome = job()
        except Exception as error:  # noqa: BLE001 (outcome of somebody else's code)
            outcome = error
        self._done.append((then, outcome))
        os.eventfd_write(self.descriptor, 1)
