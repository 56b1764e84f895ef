"""What every test may use: waiting for something to become true, and short directories."""

import threading
from collections.abc import Callable
from typing import TypeVar

from broker.clock import boottime_ms

T = TypeVar("T")
POLL_S = 0.01


def eventually(probe: Callable[[], T], within_s: float = 5.0) -> T:
    """Return the first truthy value of `probe`, asked again and again.

    An AssertionError of the probe counts as "not yet"; the last one is shown at the end.

    Raises:
        AssertionError: Nothing truthy within `within_s`.
    """
    never = threading.Event()
    deadline_ms = boottime_ms() + within_s * 1000
    while True:
        seen: object
        try:
            value = probe()
        except AssertionError as error:
            seen = error
        else:
            if value:
                return value
            seen = value
        if boottime_ms() >= deadline_ms:
            raise AssertionError(f"not within {within_s} s, last seen: {seen!r}")
        never.wait(POLL_S)


def throughout(probe: Callable[[], object], for_s: float) -> None:
    """Check that `probe` stays truthy for `for_s` seconds; only for claims about silence."""
    never = threading.Event()
    deadline_ms = boottime_ms() + for_s * 1000
    while boottime_ms() < deadline_ms:
        value = probe()
        assert value, f"no longer true: {value!r}"
        never.wait(POLL_S)
