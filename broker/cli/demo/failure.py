"""How a step of the demo fails: why, what to do, and which log tells more."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from broker.clock import boottime_ms

T = TypeVar("T")
PROBE_EVERY_S = 0.05


class StepError(Exception):
    """A claim of the demo did not hold.

    Args:
        why: What was expected and what was seen, one sentence.
        todo: The command that shows more or mends it.
        log: The log whose tail is printed.
    """

    def __init__(self, why: str, *, todo: str = "", log: Path | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.todo = todo
        self.log = log


def require(held: object, why: str, *, todo: str = "", log: Path | None = None) -> None:
    """Raise `StepError` unless the claim `held`."""
    if not held:
        raise StepError(why, todo=todo, log=log)


def until(
    expected: str, probe: Callable[[], T | None], within_s: float, *, log: Path | None = None
) -> T:
    """Return the first answer of `probe` that is neither None nor False.

    Raises:
        StepError: There was none in time, or the probe itself failed to the end.
    """
    deadline_ms = boottime_ms() + int(within_s * 1000)
    trouble = ""
    while True:
        try:
            found = probe()
            trouble = ""
        except StepError as error:
            found, trouble = None, f" ({error.why})"
        if found is not None and found is not False:
            return found
        if boottime_ms() >= deadline_ms:
            raise StepError(f"{expected}: not within {within_s:g} s{trouble}", log=log)
        pause(PROBE_EVERY_S)


def pause(seconds: float) -> None:
    """Let time pass between two looks at another process."""
    threading.Event().wait(seconds)
