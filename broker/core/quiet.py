"""How often things may be written down: bounded memory of what was said lately."""

from collections import OrderedDict
from collections.abc import Hashable

from broker.units import Millis


class Quiet:
    """Lets a key pass once in a while.

    Args:
        keys_max: Keys remembered; the one quiet for longest is forgotten first.
    """

    def __init__(self, keys_max: int = 4096) -> None:
        self._keys_max = keys_max
        self._last: OrderedDict[Hashable, Millis] = OrderedDict()

    def passes(self, key: Hashable, now_ms: Millis, every_ms: int) -> bool:
        """Return whether `key` may pass now, and if so remember that it did."""
        last = self._last.get(key)
        if last is not None and now_ms - last < every_ms:
            return False
        self._last[key] = now_ms
        self._last.move_to_end(key)
        while len(self._last) > self._keys_max:
            self._last.popitem(last=False)
        return True

    def forget(self, key: Hashable) -> None:
        """Take back a pass that came to nothing."""
        self._last.pop(key, None)


class Budget:
    """Lets so many pass at once and then one in a while, whoever they are.

    Args:
        burst: How many may pass at once after a quiet time.
        every_ms: How long each of them takes to be forgotten.
    """

    def __init__(self, burst: int, every_ms: int) -> None:
        self._most_ms = burst * every_ms
        self._every_ms = every_ms
        self._spent_until_ms = 0

    def takes(self, now_ms: Millis) -> bool:
        """Return whether one more may pass now, and if so count it."""
        spent_ms = max(self._spent_until_ms - now_ms, 0) + self._every_ms
        if spent_ms > self._most_ms:
            return False
        self._spent_until_ms = now_ms + spent_ms
        return True
