"""How long this node was away: a mark on the boot-time clock, left a few times a second.

A broker that was killed and is back in a moment was not away; one that was down for longer than
the fence may have been replaced. The mark dies with the machine's boot, and it is not synced: after
a power cut the boot id differs anyway.
"""

import contextlib
from pathlib import Path

from broker.runtime.boot import boot_id
from broker.units import Millis

MARK = "awake"


def away_ms(run: Path, now_ms: Millis) -> int | None:
    """Return how long nobody was here; None after a reboot or when nobody ever was."""
    try:
        boot, text = (run / MARK).read_text(encoding="ascii").split()
        seen_ms = int(text)
    except (OSError, ValueError):
        return None
    return now_ms - seen_ms if boot == boot_id() and seen_ms <= now_ms else None


def note_awake(run: Path, now_ms: Millis) -> None:
    """Leave the mark; a full disk costs a few seconds of asking around after the next start."""
    with contextlib.suppress(OSError):
        (run / MARK).write_text(f"{boot_id()} {now_ms}", encoding="ascii")
