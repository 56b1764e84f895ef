"""The kernel's name for this lifetime of the machine."""

from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """Return it; another one means that every value of the boot-time clock is worthless."""
    return BOOT_ID.read_text(encoding="ascii").strip()
