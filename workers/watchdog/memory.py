"""Restart counts that survive a restart of the watchdog, itself included in the count."""

import os
from collections.abc import Mapping
from pathlib import Path

from broker.runtime.watchbook import Counted, read_watchbook, write_watchbook
from broker.units import Millis, UnixSeconds
from workers.watchdog.logic import Tally
from workers.watchdog.report import Past


class Memory:
    """The counts of this supervisord's lifetime."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._written: dict[str, Counted] = {}

    def load(self) -> tuple[dict[str, Tally], dict[str, Past]]:
        """Return what is known about this supervisord's programs: restarts, and how they ended."""
        known = read_watchbook(self._run, os.getppid())
        tallies = {
            name: Tally(one.pid, one.restarts, Millis(one.since_ms)) for name, one in known.items()
        }
        return tallies, {name: _past(one) for name, one in known.items() if one.ended}

    def save(self, tallies: Mapping[str, Tally], pasts: Mapping[str, Past]) -> None:
        """Keep both when they changed."""
        counted = {name: _counted(tally, pasts.get(name)) for name, tally in tallies.items()}
        if counted != self._written:
            write_watchbook(self._run, os.getppid(), counted)
            self._written = counted


def _counted(tally: Tally, past: Past | None) -> Counted:
    if past is None:
        return Counted(tally.pid, tally.restarts, tally.since_ms)
    return Counted(tally.pid, tally.restarts, tally.since_ms, past.pid, past.words, past.at)


def _past(counted: Counted) -> Past:
    at = counted.ended_at
    return Past(counted.ended_pid, counted.ended, None if at is None else UnixSeconds(at))
