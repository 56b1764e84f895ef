"""How often the same thing may be written down: bounded memory of what was said lately."""

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
