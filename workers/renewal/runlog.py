"""The newest runs of this node's hooks, one JSON object a line."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from broker.errors import MalformedMessageError
from broker.runtime.files import write_atomic
from broker.runtime.paths import Paths
from broker.wire.console_api import HookRun
from broker.wire.plain import decode_json
from workers.renewal.logic import newest_runs


class RunLog:
    """`hook-runs.ndjson`: at most the newest 500 runs."""

    def __init__(self, paths: Paths) -> None:
        self._path = paths.hook_runs

    def add(self, run: HookRun) -> None:
        """Append one run; several workers may do so at the same time."""
        with _locked(self._path.parent):
            lines = newest_runs(self._lines(), msgspec.json.encode(run))
            write_atomic(self._path, b"\n".join(lines) + b"\n")

    def runs(self) -> list[HookRun]:
        """Return the runs, oldest first; lines that are damaged are left out."""
        found = []
        for line in self._lines():
            with contextlib.suppress(MalformedMessageError):
                found.append(decode_json(line, HookRun))
        return found

    def _lines(self) -> list[bytes]:
        try:
            return self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
