"""Lengths of time as a setting takes them: `7d`, `36h`, `90s`, in one unit."""

DAY_S, HOUR_S, MINUTE_S = 86_400, 3_600, 60
_UNITS = ((DAY_S, "d"), (HOUR_S, "h"), (MINUTE_S, "m"))


def span_down(seconds: int) -> str:
    """Return a length of time rounded down."""
    for size, unit in _UNITS:
        if seconds >= 2 * size or (seconds >= size and seconds % size == 0):
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def span_up(seconds: int) -> str:
    """Return a length of time rounded up; `seconds_up` tells what the text then stands for."""
    size, unit = _unit_up(seconds)
    return f"{-(-seconds // size)}{unit}"


def seconds_up(seconds: int) -> int:
    """Return the seconds that `span_up` says."""
    size, _ = _unit_up(seconds)
    return -(-seconds // size) * size


def _unit_up(seconds: int) -> tuple[int, str]:
    return next(((size, unit) for size, unit in _UNITS if seconds >= 2 * size), (1, "s"))
