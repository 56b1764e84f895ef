"""The only module that reads a clock.

Intervals and leases use the boot-time clock, which counts suspend and never jumps; wall time is
only compared with certificate validity.
"""

import time

from broker.units import Millis, UnixSeconds


def boottime_ms() -> Millis:
    """Return milliseconds since boot, suspend included."""
    return Millis(time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000)


def wall_s() -> UnixSeconds:
    """Return wall time in whole seconds."""
    return UnixSeconds(int(time.time()))  # noqa: TID251 (this module is the clock)
