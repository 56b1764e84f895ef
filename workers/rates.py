"""How fast one source may come: token buckets by key. Sans-IO.

Invariants: memory is bounded; a key that was forgotten starts with a full bucket, so forgetting
refuses nobody.
"""

from collections import OrderedDict

KEYS_MAX = 4096
"""Sources remembered at a time; the one that came least lately is forgotten first."""


class Buckets:
    """A bucket per key: `burst` at once, `per_s` in the long run.

    Args:
        per_s: Events allowed per second and key; 0 allows any number.
        burst: Events allowed at once after a pause.
        keys_max: Bound of the memory.
    """

    def __init__(self, per_s: float, burst: int, keys_max: int = KEYS_MAX) -> None:
        self._per_s = per_s
        self._burst = burst
        self._keys_max = keys_max
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._left)

    def wait_s(self, key: str, now: float) -> float:
        """Take one from the bucket of `key`; return 0.0, or how long until there is one.

        Args:
            key: Whose bucket.
            now: Seconds of a clock that only goes forward.
        """
        if self._per_s <= 0:
            return 0.0
        left, seen = self._left.pop(key, (float(self._burst), now))
        left = min(self._burst, left + (now - seen) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._left[key] = (left if wait_s else left - 1, now)
        if len(self._left) > self._keys_max:
            self._left.popitem(last=False)
        return wait_s
