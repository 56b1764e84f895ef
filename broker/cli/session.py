"""What the global options said, and what a command needs from them: home, settings, console."""

import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from broker.cli.screen import Colour, Screen
from broker.errors import NoMeshError, UnavailableError

if TYPE_CHECKING:
    from broker.cli.api import Api
    from broker.runtime.paths import Paths
    from broker.runtime.settings import Settings

HOME_VARIABLE = "CERTMESH_HOME"
SYSTEM_HOME = Path("/var/lib/certmesh")
SETTINGS_FILE = "certmesh.toml"
OPERATOR_VARIABLE = "CERTMESH_OPERATOR"
SUDO_VARIABLE = "SUDO_USER"
TIMEOUT_MS = 10_000


@dataclass
class Session:
    """One run of the command."""

    home_option: str = ""
    json: bool = False
    quiet: bool = False
    verbose: bool = False
    color: Colour = "auto"
    no_input: bool = False
    yes: bool = False
    timeout_ms: int | None = None
    operator_option: str = ""

    @property
    def operator(self) -> str:
        """Who is at work, where the account does not say: the option, else the environment.

        Under sudo it is whoever called it.
        """
        said = self.operator_option or os.environ.get(OPERATOR_VARIABLE, "")
        caller = os.environ.get(SUDO_VARIABLE, "") if os.geteuid() == 0 else ""
        return said or ("" if caller == "root" else caller)

    @property
    def screen(self) -> Screen:
        """Where this command writes."""
        return Screen(json=self.json, quiet=self.quiet, color=self.color)

    @property
    def interactive(self) -> bool:
        """Whether a person can be asked."""
        return not self.no_input and sys.stdin.isatty() and sys.stderr.isatty()

    @cached_property
    def home(self) -> Path:
        """The node's directory: `--home`, else `CERTMESH_HOME`, else the usual place."""
        chosen = self.home_option or os.environ.get(HOME_VARIABLE, "")
        place = Path(chosen).expanduser() if chosen else usual_home(os.geteuid())
        return Path(os.path.abspath(place))  # noqa: PTH100 (keep the links the user chose)

    @property
    def settings_file(self) -> Path:
        """The node's settings file."""
        return self.home / SETTINGS_FILE

    @cached_property
    def settings(self) -> "Settings":
        """The node's settings.

        Raises:
            NoMeshError: There is no node in the home directory.
            SettingsError: The file is there, and wrong.
        """
        from broker.runtime.settings import load_settings  # noqa: PLC0415 (help needs no msgspec)

        if not self.settings_file.exists():
            raise NoMeshError(
                f"there is no certmesh node in {self.home} ({SETTINGS_FILE} is missing)",
                hint=f"{self.command('init NAME')}, {self.command('join INVITE')}, "
                "or name the right --home",
            )
        return load_settings(self.settings_file)

    @property
    def paths(self) -> "Paths":
        """Where this node keeps its things; raises as `settings`."""
        from broker.runtime.paths import node_paths  # noqa: PLC0415 (help needs no msgspec)

        return node_paths(self.settings_file, self.settings)

    def patience_ms(self, usual_ms: int = TIMEOUT_MS) -> int:
        """Return `--timeout`, else the command's own limit."""
        return self.timeout_ms or usual_ms

    def api(self, usual_ms: int = TIMEOUT_MS) -> "Api":
        """Return the way to this node's console; nothing is dialled yet."""
        from broker.cli.api import Api  # noqa: PLC0415 (help needs no HTTP)

        patience_ms = self.patience_ms(usual_ms)
        return Api(self.paths.api_socket, patience_ms, self._silence(), self.operator)

    def command(self, words: str) -> str:
        """Return a `certmesh` command line for this very home, ready to be copied."""
        named = self.home_option or os.environ.get(HOME_VARIABLE, "")
        return f"certmesh --home {self.home} {words}" if named else f"certmesh {words}"

    def _silence(self) -> NoMeshError | UnavailableError:
        """Return what it means when the console does not answer."""
        if not self.paths.membership.exists():
            return NoMeshError(
                f"the node in {self.home} belongs to no mesh",
                hint=f"{self.command('init NAME')} or {self.command('join INVITE')}",
            )
        return UnavailableError(
            f"the node in {self.home} is not running (nothing answers on {self.paths.api_socket})",
            hint=self.command("up"),
        )


def usual_home(uid: int) -> Path:
    """Return where a node lives when nobody says: the system's place for root, else XDG state."""
    if uid == 0:
        return SYSTEM_HOME
    state = os.environ.get("XDG_STATE_HOME", "")
    return Path(state or Path.home() / ".local" / "state") / "certmesh"
