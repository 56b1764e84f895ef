"""How values look to people: escaped text, spans of time, fingerprints. Pure.

Names, reasons and log lines come from other machines: everything printed goes through `clean`.
"""

import unicodedata
from datetime import UTC, datetime

SHORT_ID = 12
_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode categories that steer a terminal or change reading order; none of them is a letter."""


def clean(text: str) -> str:
    """Return `text` with everything that could steer a terminal written as an escape.

    A host named `ESC [2J` must not clear the screen of whoever lists the members, and a
    right-to-left override must not make one name look like another.
    """
    return "".join(_escaped(mark) if _is_hidden(mark) else mark for mark in text)


def _is_hidden(mark: str) -> bool:
    return unicodedata.category(mark) in _HIDDEN


def _escaped(mark: str) -> str:
    code = ord(mark)
    if code <= 0xFF:  # noqa: PLR2004 (what two hex digits can say)
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 (four digits)


def rfc3339(at: int) -> str:
    """Return a moment as `2026-11-23T13:20:00Z`; a moment no calendar knows is a bare number."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(at)


def day(at: int) -> str:
    """Return the date of a moment, UTC."""
    return rfc3339(at)[:10]


def span(seconds: float) -> str:
    """Return a length of time in one unit: `51 s`, `14 min`, `36 h`, `29 d`."""
    whole = max(0, int(seconds))
    if whole < 2 * _MINUTE_S:
        return f"{whole} s"
    if whole < 2 * _HOUR_S:
        return f"{whole // _MINUTE_S} min"
    if whole < 2 * _DAY_S:
        return f"{whole // _HOUR_S} h"
    return f"{whole // _DAY_S} d"


def ago(at: int | None, now: int) -> str:
    """Return how long ago `at` was: `now`, `4 s ago`, or `-` when it never was."""
    if at is None:
        return "-"
    return "now" if now - at < 2 else f"{span(now - at)} ago"  # noqa: PLR2004 (one beat)


def left(not_after: int | None, now: int) -> str:
    """Return what remains of a certificate: `29 d left`, `expired 2 d ago`, `none`."""
    if not_after is None:
        return "none"
    return f"{span(not_after - now)} left" if not_after >= now else f"expired {ago(not_after, now)}"


def due_in(at: int | None, now: int) -> str:
    """Return the time until `at`, `due` once it has come, `-` when unknown."""
    if at is None:
        return "-"
    return span(at - now) if at > now else "due"


def grouped(digits: str, size: int = 4) -> str:
    """Return hex or a TOTP key in groups a person can compare: `9f3a 41c2 ...`."""
    return " ".join(digits[start : start + size] for start in range(0, len(digits), size))


def short_serial(serial: str) -> str:
    """Return the first three octets of a serial: `4c:11:e0…`; `-` when there is none."""
    if not serial:
        return "-"
    pairs = [serial[start : start + 2] for start in range(0, min(len(serial), 6), 2)]
    return ":".join(pairs) + ("…" if len(serial) > 6 else "")  # noqa: PLR2004 (three octets)


def duration_text(milliseconds: int) -> str:
    """Return a duration the way settings files write it: `250ms`, `90s`, `12h`, `30d`."""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0s"


def short_id(identity: str) -> str:
    """Return enough of an id to name it by; commands take any unambiguous beginning."""
    return identity[:SHORT_ID]
