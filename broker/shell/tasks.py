"""Volatile work asked for by a caller that waits: rekey and install on this node.

Not durable on purpose: the caller repeats its request with the same id, so a lost task is asked
for again. Bounded.
"""

from collections import OrderedDict
from dataclasses import dataclass

from broker.errors import BusyError
from broker.wire.work import Install, Rekey

TASKS_MAX = 64
"""A member has one certificate; more callers than this are an attack or a bug."""


@dataclass(frozen=True, slots=True)
class Task:
    """One item; `request_id` names the waiting caller."""

    request_id: bytes
    item: Rekey | Install


class TaskQueue:
    """Tasks in order of arrival."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[bytes, Task] = OrderedDict()

    def add(self, task: Task) -> None:
        """Queue a task; the same request id is queued once.

        Raises:
            BusyError: The queue is full.
        """
        if len(self._tasks) >= TASKS_MAX and task.request_id not in self._tasks:
            raise BusyError("too many installations are waiting", retry_after_ms=1000)
        self._tasks.setdefault(task.request_id, task)

    def all(self) -> tuple[Task, ...]:
        """Return the queued tasks, oldest first."""
        return tuple(self._tasks.values())

    def drop(self, request_id: bytes) -> None:
        """Forget a task that is done or whose caller gave up."""
        self._tasks.pop(request_id, None)
