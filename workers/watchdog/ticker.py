"""Wakes supervisord: it reaps and respawns at once instead of after its one-second poll.

Any byte from any child ends supervisord's poll, so a thread writes one to standard error every
50 ms. It also watches the watchdog itself: when the main loop stops turning, the process ends and
supervisord starts a new one.
"""

import contextlib
import os
import threading

from broker.runtime.exits import Exit

TICK_S = 0.05
HUNG_TICKS = 600
"""Thirty seconds of ticking without one turn of the main loop."""


class Ticker:
    """A daemon thread; `turned` tells it that the main loop goes round."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._stopping = threading.Event()
        self._ticks = 0
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        """Begin to tick."""
        self._thread.start()

    def stop(self) -> None:
        """Stop ticking."""
        self._stopping.set()
        self._thread.join(1)

    def turned(self) -> None:
        """Note that the main loop has gone round."""
        self._ticks = 0

    def _run(self) -> None:
        while not self._stopping.wait(TICK_S):
            with contextlib.suppress(OSError):
                os.write(self._descriptor, b".")
            self._ticks += 1
            if self._ticks > HUNG_TICKS:
                os._exit(Exit.FAILED)
