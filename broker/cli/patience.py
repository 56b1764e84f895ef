"""Waiting for something to become true at this node, with an end."""

import select
from collections.abc import Callable
from typing import TypeVar

from broker.clock import boottime_ms
from broker.errors import MeshError

LOOK_MS = 200
"""Between two looks; a change of roles takes seconds, so this costs nothing that shows."""

T = TypeVar("T")


def until(look: Callable[[], T | None], patience_ms: int) -> T | None:
    """Return the first thing `look` finds, or None when patience ends; looks at least once.

    A node that is busy or restarting is asked again: roles move exactly then.

    Raises:
        MeshError: A refusal that asking again does not change.
    """
    deadline = boottime_ms() + patience_ms
    nothing = select.poll()
    while True:
        try:
            found = look()
        except MeshError as error:
            if not error.retryable or boottime_ms() > deadline:
                raise
            found = None
        if found is not None or boottime_ms() > deadline:
            return found
        nothing.poll(LOOK_MS)
