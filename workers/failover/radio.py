"""A thread that keeps the announcement and the browse as they should be, whatever mDNS does.

The loop only states what it wants and reads hints. Wanting is a lease: when nobody renews it (the
broker is away, the loop hangs), the announcement is withdrawn. A failed browse is logged, reported
as trouble and started again with backoff; nothing that zeroconf raises ends the thread.
"""

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from broker.clock import boottime_ms
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.units import Millis
from broker.wire.failover import Announcement, Hint
from workers.failover.logic import keep

if TYPE_CHECKING:
    from workers.failover.air import Air

STEP_S = 0.25
RESOLVES_PER_STEP = 4
REFRESH_MS = 60_000
BACKOFF_MS_MIN = 1_000
BACKOFF_MS_MAX = 60_000
LEAVE_S = 0.8
"""Patience for goodbyes at exit; the process must be gone within a second."""


class Radio:
    """Owner of the `Air`; all its public methods return at once, except `close`."""

    def __init__(
        self,
        open_air: Callable[[Callable[[], None]], "Air"],
        lease_ms: int,
        backoff_ms: int = BACKOFF_MS_MIN,
    ) -> None:
        self._open_air = open_air
        self._lease_ms = lease_ms
        self._backoff_ms = backoff_ms
        self._failures = 0
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._closing = False
        self._wanted: Announcement | None = None
        self._wanted_until_ms = Millis(0)
        self._pin = ""
        self._hints: dict[str, Hint] = {}
        self._trouble = ""
        self._air: Air | None = None
        self._aired: Announcement | None = None
        self._refresh_at_ms = self._open_at_ms = self._opened_at_ms = Millis(0)
        self._thread = threading.Thread(target=self._run, name="radio", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def want(self, announcement: Announcement | None, pin: str) -> None:
        """Announce this (or nothing) for one more lease; `pin` tells our CA's records apart."""
        with self._lock:
            self._wanted, self._pin = announcement, pin
            self._wanted_until_ms = Millis(boottime_ms() + self._lease_ms)
        self._wake.set()
        if not self._thread.ident and not self._closing:
            self._thread.start()  # on first use: with mDNS off there is no thread at all

    def hints(self) -> tuple[Hint, ...]:
        """Return what the browse found; hints, never evidence."""
        with self._lock:
            return tuple(self._hints.values())

    def trouble(self) -> str:
        """Return why discovery does not work now, or an empty string."""
        with self._lock:
            return self._trouble

    def is_announcing(self) -> bool:
        """Return whether an announcement is on the air."""
        return self._aired is not None

    def close(self) -> None:
        """Withdraw, say goodbye and leave, within a bounded time."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(LEAVE_S)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(STEP_S)
            self._wake.clear()
            try:
                self._step(boottime_ms())
            except Exception as error:  # noqa: BLE001 (a thread's outermost frame: start over)
                self._fail(error)
        self._hang_up("stopping")

    def _step(self, now: Millis) -> None:
        if self._air is None and now < self._open_at_ms:
            return
        if self._air is None:
            self._air = self._open_air(self._wake.set)
            self._opened_at_ms = now
            self._replace_hints({})
        if not self._air.is_alive():
            raise ConnectionError("the browse ended by itself")
        if self._failures and now - self._opened_at_ms >= self._pause_ms():
            self._recover()
        self._air_what_is_wanted(self._air, now)
        self._take_changes(self._air)

    def _air_what_is_wanted(self, air: "Air", now: Millis) -> None:
        with self._lock:
            lapsed = now >= self._wanted_until_ms
            wanted = None if lapsed else self._wanted
        if wanted is None and self._aired is not None:
            air.withdraw()
            self._aired = None
            reason = "the broker does not answer" if lapsed else "not an unlocked primary"
            log(EventName.PRIMARY_WITHDRAWN, reason=reason)
        elif wanted is not None and wanted != self._aired:
            air.announce(wanted)
            self._aired, self._refresh_at_ms = wanted, Millis(now + REFRESH_MS)
            log(EventName.PRIMARY_ANNOUNCED, instance=wanted.instance, txt=str(wanted.txt))
        elif self._aired is not None and now >= self._refresh_at_ms:
            self._refresh_at_ms = Millis(now + REFRESH_MS)
            air.refresh()

    def _take_changes(self, air: "Air") -> None:
        for _ in range(RESOLVES_PER_STEP):
            change = air.take_change()
            if change is None:
                return
            name, present = change
            hint = _resolved(air, name) if present else None
            others = {key: value for key, value in self._hints.items() if key != name}
            self._replace_hints(others if hint is None else keep(others, name, hint, self._pin))
            if hint is not None and name not in others:
                log(EventName.PEER_DISCOVERED, level="debug", instance=hint.instance)
        self._wake.set()  # there may be more; a stop or a withdrawal goes first

    def _replace_hints(self, hints: dict[str, Hint]) -> None:
        with self._lock:
            self._hints = hints

    def _recover(self) -> None:
        with self._lock:
            self._trouble = ""
        self._failures = 0
        log(EventName.DISCOVERY_RECOVERED)

    def _fail(self, error: Exception) -> None:
        reason = f"discovery failed: {type(error).__name__}: {error}"[:300]
        with self._lock:
            self._trouble = reason
        self._failures += 1
        pause_ms = self._pause_ms()
        self._open_at_ms = Millis(boottime_ms() + pause_ms)
        log(EventName.DISCOVERY_FAILED, level="error", reason=reason, retry_in_ms=pause_ms)
        self._hang_up(reason)

    def _pause_ms(self) -> int:
        return int(min(self._backoff_ms * 2 ** min(self._failures - 1, 16), BACKOFF_MS_MAX))

    def _hang_up(self, reason: str) -> None:
        air, self._air = self._air, None
        was_aired, self._aired = self._aired is not None, None
        if air is not None:
            with contextlib.suppress(Exception):
                air.close()
        if was_aired:
            log(EventName.PRIMARY_WITHDRAWN, reason=reason)


def _resolved(air: "Air", name: str) -> Hint | None:
    """Return the hint, or None for a record that breaks the parser: rubbish stops nothing else."""
    try:
        return air.resolve(name)
    except Exception as error:  # noqa: BLE001 (whatever a hostile record makes zeroconf raise)
        log(EventName.DISCOVERY_FAILED, level="debug", name=name, reason=repr(error))
        return None
