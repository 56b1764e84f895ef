"""The command as tests call it, and what it said."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COMMAND = (sys.executable, "-m", "broker.cli")


@dataclass(frozen=True, slots=True)
class Said:
    """What one run of the command said."""

    status: int
    out: str
    err: str

    @property
    def body(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        found = json.loads(self.out)
        assert isinstance(found, dict)
        return found


Certmesh = Callable[..., Said]


def on_terminal(words: tuple[str, ...], typed: bytes) -> tuple[int, bytes]:
    """Run the command on a terminal of its own; return status and all the terminal showed."""
    ours, theirs = pty.openpty()
    try:
        with subprocess.Popen(
            [*COMMAND, *words], stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        ) as child:
            shown = b""
            while b":" not in shown:
                shown += os.read(ours, 4096)
            os.write(ours, typed)
            status = child.wait(timeout=20)
        os.set_blocking(ours, False)
        try:
            while more := os.read(ours, 4096):
                shown += more
        except OSError:
            pass
        return status, shown
    finally:
        os.close(ours)
        os.close(theirs)
