"""NSS stores of this user: `~/.pki/nssdb` (Chromium and others) and the profiles of Firefox.

Each is a directory of its own, spoken to through `certutil`. A certificate is ours only if what
lies under our name is the pinned one.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.cli.truststore.anchor import Anchor, fingerprints
from broker.cli.truststore.store import Absent, Finding, State, Store, run_tool
from broker.errors import ConflictError, InternalError

TOOL = "certutil"
TRUSTED_FOR_SERVERS = "C,,"
"""An issuer of server certificates, and of nothing else: not of mail, not of code."""
_DATABASE = "cert9.db"
_SHARED = ".pki/nssdb"
_FIREFOX = (
    ".mozilla/firefox",
    "snap/firefox/common/.mozilla/firefox",
    ".var/app/org.mozilla.firefox/.mozilla/firefox",
)

_WORDS: dict[State, str] = {
    "installed": "trusted for servers",
    "missing": "not there",
    "foreign": "another certificate has this name",
}


def nss_stores(home: Path) -> tuple[Store, ...]:
    """Return the stores of the user whose home this is; or one that says why there is none."""
    found = tuple(_directories(home))
    if not found:
        return (Absent(Finding("nss", str(home), "none", "no NSS database here")),)
    tool = shutil.which(TOOL)
    if tool is None:
        why = Finding("nss", str(home), "unavailable", "no certutil", "apt install libnss3-tools")
        return (Absent(why),)
    return tuple(_store(tool, directory) for directory in found)


def _store(tool: str, directory: Path) -> Store:
    if directory.stat().st_uid != os.geteuid():
        # What root writes into somebody's profile, its owner cannot read any more.
        why = "belongs to another user"
        return Absent(Finding("nss", str(directory), "unavailable", why, "run it as that user"))
    return NSSStore(tool, directory)


@dataclass(frozen=True, slots=True)
class NSSStore:
    """One database."""

    tool: str
    directory: Path

    def look(self, anchor: Anchor) -> Finding:
        """Return how the database stands with the root."""
        state = self._state(anchor)
        hint = "certmesh trust install --store nss" if state == "missing" else ""
        return Finding("nss", str(self.directory), state, _WORDS[state], hint)

    def install(self, anchor: Anchor) -> None:
        """Add the root.

        Raises:
            ConflictError: Something else has that name.
            InternalError: `certutil` failed.
        """
        self._refuse_foreign(anchor)
        self._run("-A", "-a", "-n", anchor.name, "-t", TRUSTED_FOR_SERVERS, typed=anchor.pem)

    def uninstall(self, anchor: Anchor) -> None:
        """Remove the root if it is ours; raises as `install`."""
        self._refuse_foreign(anchor)
        if self._state(anchor) == "installed":
            self._run("-D", "-n", anchor.name)

    def _refuse_foreign(self, anchor: Anchor) -> None:
        if self._state(anchor) == "foreign":
            raise ConflictError(f"{anchor.name} in {self.directory} is not our root, so it stays")

    def _state(self, anchor: Anchor) -> State:
        if anchor.name not in _names(self._run("-L")):
            return "missing"
        held = fingerprints(self._run("-L", "-a", "-n", anchor.name))
        return "installed" if held == {anchor.pin} else "foreign"

    def _run(self, *words: str, typed: str = "") -> str:
        verb, *rest = words
        try:
            return run_tool([self.tool, verb, "-d", f"sql:{self.directory}", *rest], typed)
        except InternalError as error:
            raise InternalError(
                f"{self.directory}: {error.detail}",
                hint="close the browser; a database with a main password asks for it, so add the "
                "root in the browser's own settings there",
            ) from None


def _names(listing: str) -> frozenset[str]:
    """Return the nicknames in the table that `certutil -L` prints; none of ours has a space."""
    return frozenset(line.split()[0] for line in listing.splitlines() if line.split())


def _directories(home: Path) -> Iterator[Path]:
    if (home / _SHARED / _DATABASE).exists():
        yield home / _SHARED
    for place in _FIREFOX:
        for file in sorted((home / place).glob(f"*/{_DATABASE}")):
            if os.access(file, os.R_OK):
                yield file.parent
