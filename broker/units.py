"""Unit types, kept apart from the clock so that decision code never imports `time`."""

from typing import NewType

Millis = NewType("Millis", int)
"""Milliseconds on the boot-time clock of one machine; never leaves it."""

UnixSeconds = NewType("UnixSeconds", int)
"""Whole seconds of wall time, only for comparison with certificate validity."""
