"""The system's store on Debian and its relatives: a file of ours, and `update-ca-certificates`.

The tool makes one bundle of all files. Ours is found by its name and believed to be ours only if it
holds the pinned certificate: what somebody else put under that name is left alone.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from broker.cli.truststore.anchor import Anchor, fingerprints
from broker.cli.truststore.store import TOOL_PATH, Absent, Finding, State, Store, below, run_tool
from broker.errors import ConflictError, ForbiddenError, StorageError
from broker.runtime.files import write_atomic

TOOL = "update-ca-certificates"
READABLE = 0o644
_LOCAL = Path("/usr/local/share/ca-certificates")
_BUNDLES = Path("/etc/ssl/certs")
_BUNDLE = "ca-certificates.crt"
_WORDS: dict[State, tuple[str, str]] = {
    "installed": ("in the file and in the bundle", ""),
    "missing": ("not there", "certmesh trust install"),
    "stale": ("the file is there, the bundle lacks it", "certmesh trust install"),
    "foreign": ("another certificate has this name", "look at it; move it away if it is old"),
}


def system_store(root: Path | None) -> Store:
    """Return the system's store, below `root` if there is one; or why there is none."""
    if shutil.which(TOOL, path=f"{os.environ.get('PATH', '')}:{TOOL_PATH}") is None:
        finding = Finding(
            "system", TOOL, "unavailable", f"no {TOOL}", "apt install ca-certificates"
        )
        return Absent(finding)
    return SystemStore(root)


@dataclass(frozen=True, slots=True)
class SystemStore:
    """Files of `/usr/local/share/ca-certificates` and the bundle made of them."""

    root: Path | None = None

    def look(self, anchor: Anchor) -> Finding:
        """Return how the store stands with the root."""
        state, path = self._state(anchor), self._file(anchor)
        detail, hint = _WORDS[state]
        if state == "stale" and not path.exists():
            # The tool makes no bundle at all when no certificate is left; then the old one stays.
            detail, hint = "the file is gone, the bundle still has it", f"{TOOL} --fresh"
        return Finding("system", str(path), state, detail, hint)

    def install(self, anchor: Anchor) -> None:
        """Write the file and let the bundle be made again.

        Raises:
            ConflictError: Something else has that name.
            ForbiddenError: This user may not write there.
            StorageError: The disk refused.
        """
        if self._state(anchor) == "foreign":
            raise ConflictError(f"{self._file(anchor)} is not our root, so it stays as it is")
        try:
            self._file(anchor).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._file(anchor), anchor.pem.encode(), READABLE)
        except OSError as error:
            raise _trouble(error, self._file(anchor)) from None
        self._update()

    def uninstall(self, anchor: Anchor) -> None:
        """Remove the file if it holds our root, and let the bundle be made again.

        Raises:
            ConflictError: It holds something else.
            ForbiddenError: This user may not write there.
            StorageError: The disk refused.
        """
        if self._state(anchor) == "foreign":
            raise ConflictError(f"{self._file(anchor)} is not our root, so it stays as it is")
        try:
            self._file(anchor).unlink(missing_ok=True)
        except OSError as error:
            raise _trouble(error, self._file(anchor)) from None
        self._update()

    def _state(self, anchor: Anchor) -> State:
        held = _read(self._file(anchor))
        bundled = anchor.pin in fingerprints(_read(self._bundles / _BUNDLE) or "")
        if held is None:
            return "stale" if bundled else "missing"
        if fingerprints(held) != {anchor.pin}:
            return "foreign"
        return "installed" if bundled else "stale"

    def _update(self) -> None:
        command = [TOOL]
        if self.root is not None:
            share, conf = Path("/usr/share/ca-certificates"), Path("/etc/ca-certificates.conf")
            hooks = Path("/etc/ca-certificates/update.d")
            places = {"local": _LOCAL, "etc": _BUNDLES, "": share}
            for word, place in places.items():
                below(self.root, place).mkdir(parents=True, exist_ok=True)
                command += [f"--{word}certsdir", str(below(self.root, place))]
            command += ["--certsconf", str(below(self.root, conf))]
            command += ["--hooksdir", str(below(self.root, hooks))]
            below(self.root, conf).touch()
        run_tool(command)

    @property
    def _bundles(self) -> Path:
        return below(self.root, _BUNDLES)

    def _file(self, anchor: Anchor) -> Path:
        return below(self.root, _LOCAL) / f"{anchor.name}.crt"


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _trouble(error, path) from None


def _trouble(error: OSError, path: Path) -> ForbiddenError | StorageError:
    if isinstance(error, PermissionError):
        return ForbiddenError(
            f"{path} is for root alone",
            hint="run it with sudo, and name this node with --home",
        )
    return StorageError(f"cannot use {path}: {error.strerror or error}")
