"""Where a node keeps its things: everything below one home directory unless settings say else."""

import os
from dataclasses import dataclass
from pathlib import Path

from broker.errors import SettingsError
from broker.runtime.settings import Settings

SOCKET_PATH_BYTES_MAX = 107
"""Longest path of a Unix socket on Linux (sun_path is 108 bytes with its NUL)."""


@dataclass(frozen=True, slots=True)
class Paths:
    """All files of one node; `home` is the directory that holds certmesh.toml."""

    home: Path
    data: Path
    run: Path
    apart: bool = False
    """Processes are different users (`[users]`), so that each writes in a directory of its own."""

    @property
    def settings(self) -> Path:
        """The settings file."""
        return self.home / "certmesh.toml"

    @property
    def supervisord(self) -> Path:
        """This node's process table."""
        return self.home / "supervisord.conf"

    @property
    def log(self) -> Path:
        """Directory of process logs."""
        return self.home / "log"

    @property
    def ledger(self) -> Path:
        """The SQLite ledger."""
        return self.data / "ledger.db"

    @property
    def authority(self) -> Path:
        """Directory of the CA's certificates, sealed keys and slots."""
        return self.data / "ca"

    @property
    def certificates(self) -> Path:
        """Directory of `<name>/v0001/...` and the `live` link."""
        return self.data / "certs"

    @property
    def trust(self) -> Path:
        """Directory of `ca.pem` and `crl.pem` for other software of this machine."""
        return self.data / "trust"

    @property
    def membership(self) -> Path:
        """The `Membership` of this node as JSON."""
        return self.data / "membership.json"

    @property
    def credential(self) -> Path:
        """File with the secret of the credential slot."""
        return self.data / "credentials" / "ca-unlock"

    @property
    def hook_runs(self) -> Path:
        """What hooks said, one line of JSON for each run; written by renewal processes."""
        return (self.data / "hook-runs" if self.apart else self.data) / "hook-runs.ndjson"

    @property
    def broker_run(self) -> Path:
        """Where the broker has its sockets and marks, and nobody else can put a socket."""
        return self.run / "broker" if self.apart else self.run

    @property
    def console_run(self) -> Path:
        """Where the console has its socket."""
        return self.run / "console" if self.apart else self.run

    @property
    def lock(self) -> Path:
        """Flock target: one broker per data directory."""
        return self.data / "broker.lock"

    @property
    def requests_socket(self) -> Path:
        """ROUTER for ordinary requests."""
        return self.broker_run / "broker.sock"

    @property
    def control_socket(self) -> Path:
        """ROUTER for liveness and other short, urgent requests; drained first."""
        return self.broker_run / "control.sock"

    @property
    def events_socket(self) -> Path:
        """PUB for hints."""
        return self.broker_run / "events.sock"

    @property
    def api_socket(self) -> Path:
        """The console's HTTP socket."""
        return self.console_run / "api.sock"

    @property
    def supervisor_socket(self) -> Path:
        """Supervisord's XML-RPC socket."""
        return self.run / "supervisor.sock"


def node_paths(settings_file: Path, settings: Settings) -> Paths:
    """Return the paths of the node whose settings file this is.

    Raises:
        SettingsError: The run directory is so long that sockets in it cannot exist.
    """
    home = Path(os.path.abspath(settings_file)).parent  # noqa: PTH100 (no symlink resolution)
    data = Path(settings.node.data_dir) if settings.node.data_dir else home
    run = Path(settings.node.run_dir) if settings.node.run_dir else home / "run"
    apart = settings.users.differ
    longest = run / ("console/api.sock" if apart else "supervisor.sock")
    if len(os.fsencode(longest)) > SOCKET_PATH_BYTES_MAX - len(".12345678"):
        raise SettingsError(
            f"{longest} is too long for a Unix socket ({SOCKET_PATH_BYTES_MAX} bytes)",
            hint='set node.run_dir in certmesh.toml to a short directory, such as "/run/certmesh"',
        )
    return Paths(home=home, data=data, run=run, apart=apart)
