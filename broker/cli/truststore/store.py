"""What every store can: say how it stands with a root, take it in, give it up."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from broker.cli.truststore.anchor import Anchor
from broker.errors import DeadlineError, InternalError, UnavailableError

State = Literal["installed", "missing", "stale", "foreign", "unavailable", "none"]
"""`stale`: the file is there, the bundle made of all files lacks it. `foreign`: something else has
our name. `unavailable`: a tool is missing. `none`: there is no such store, so nothing to do."""

TOOL_TIMEOUT_S = 120
TOOL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ROOT_VARIABLE = "CERTMESH_TRUST_ROOT"
"""Puts every store below one directory: images that are being built, and tests."""


@dataclass(frozen=True, slots=True)
class Finding:
    """How one store stands with one root."""

    store: str
    place: str
    state: State
    detail: str = ""
    hint: str = ""


class Store(Protocol):
    """One store; looking never changes anything."""

    def look(self, anchor: Anchor) -> Finding:
        """Return how it stands."""
        ...

    def install(self, anchor: Anchor) -> None:
        """Take the root in; raises `MeshError` when that fails."""
        ...

    def uninstall(self, anchor: Anchor) -> None:
        """Give the root up; raises `MeshError` when that fails."""
        ...


@dataclass(frozen=True, slots=True)
class Absent:
    """A store that cannot be used here, and why."""

    finding: Finding

    def look(self, _anchor: Anchor) -> Finding:
        """Return why."""
        return self.finding

    def install(self, _anchor: Anchor) -> None:
        """Do nothing: there is nothing to put it into."""

    def uninstall(self, _anchor: Anchor) -> None:
        """Do nothing: nothing was put in."""


def below(root: Path | None, place: Path) -> Path:
    """Return a place of the system, below `root` if there is one."""
    return place if root is None else root / place.relative_to("/")


def run_tool(command: Sequence[str], typed: str = "") -> str:
    """Return what a tool wrote.

    Raises:
        UnavailableError: It is not installed.
        DeadlineError: It does not come back.
        InternalError: It failed; the detail has its last line.
    """
    search = f"{os.environ.get('PATH', '')}:{TOOL_PATH}"
    try:
        done = subprocess.run(  # noqa: S603 (an argument list, no shell)
            command,
            input=typed,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TOOL_TIMEOUT_S,
            check=False,
            env={**os.environ, "PATH": search, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise UnavailableError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise DeadlineError(f"{command[0]} did not end within {TOOL_TIMEOUT_S} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        last = said[-1] if said else f"exit status {done.returncode}"
        raise InternalError(f"{Path(command[0]).name} failed: {last}")
    return done.stdout
