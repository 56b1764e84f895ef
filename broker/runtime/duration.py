"""Durations as people write them: "90s", "5m", "12h", "30d", and "250ms" for tests and demos."""

import re

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SHAPE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)")


class Duration(int):
    """Milliseconds, made from text with a unit; a bare number is refused on purpose."""

    @classmethod
    def parse(cls, text: str) -> "Duration":
        """Return the duration in `text`.

        Raises:
            ValueError: No number with a unit.
        """
        match = _SHAPE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f'"{text}" is no duration: write a number with ms, s, m, h or d')
        return cls(float(match[1]) * _UNITS_MS[match[2]])

    @property
    def ms(self) -> int:
        """Whole milliseconds."""
        return int(self)

    @property
    def s(self) -> int:
        """Whole seconds, rounded up: a positive duration never becomes zero."""
        return -(-int(self) // 1000)

    @property
    def seconds(self) -> float:
        """Seconds with fraction, as library timeouts want them."""
        return int(self) / 1000
