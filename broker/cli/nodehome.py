"""Preparing a node's directory for `init` and `join`: settings, process table, directories.

A certmesh.toml that is already there is a person's: it is kept, and gets only keys it lacks.
Whatever this made is taken back by `undo`, so that a failed attempt never stands in the way of the
next one.
"""

import contextlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from broker.cli.processtable import PROCESS_TABLE, write_process_table
from broker.cli.session import SETTINGS_FILE
from broker.cli.tomlfile import parsed, with_key
from broker.errors import ConflictError, MeshExistsError
from broker.runtime.files import private_directory, write_atomic
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import Settings, load_settings, parse_settings
from broker.runtime.tomltext import read_toml

PRIVATE_UMASK = 0o077
HEADER = """\
# certmesh settings of this node. Only what differs from the defaults is written here;
# `certmesh config show` prints everything, `certmesh config schema` what is allowed.
# Durations carry a unit: "90s", "5m", "12h", "30d". Unknown keys are errors.
"""
_OURS = frozenset(
    {SETTINGS_FILE, PROCESS_TABLE, "log", "run", "hooks.d", "ca", "certs", "ledger.db"}
)
_HARMLESS = frozenset({"lost+found"})

Wanted = Mapping[tuple[str, str], Any]
"""(section, key) to value."""


@dataclass
class NodeHome:
    """A prepared directory, and how to take the preparation back."""

    paths: Paths
    settings: Settings
    before: bytes | None
    made: list[Path] = field(default_factory=list)

    def undo(self) -> None:
        """Put the settings file back as it was and remove the process table made here.

        Not once there is a membership: whatever went wrong after that, this is a node now.
        """
        if self.paths.membership.exists():
            return
        if self.before is None:
            self.paths.settings.unlink(missing_ok=True)
        elif self.paths.settings.read_bytes() != self.before:
            write_atomic(self.paths.settings, self.before)
        for path in self.made:
            path.unlink(missing_ok=True)
        for directory in (self.paths.run, self.paths.log, self.paths.home):
            # Only what is empty: logs of the attempt are worth keeping.
            with contextlib.suppress(OSError):
                directory.rmdir()


def prepare(home: Path, wanted: Wanted, usual: Wanted) -> NodeHome:
    """Return the node's directory, ready for the programs that fill it.

    Args:
        home: The directory; made when missing.
        wanted: What the person asked for by option; refused where the file says otherwise.
        usual: What to write unless the file has an opinion.

    Raises:
        MeshExistsError: The node belongs to a mesh already; nothing was changed.
        ConflictError: The directory is full of something else.
        SettingsError: A setting is unknown, impossible, or the path too long for a socket.
        click.UsageError: An option contradicts the file.
    """
    refuse_second_mesh(home)
    _refuse_foreign(home)
    file = home / SETTINGS_FILE
    before = file.read_bytes() if file.exists() else None
    text = _merged((before or HEADER.encode()).decode(), file, wanted, usual)
    paths = node_paths(file, parse_settings(parsed(text, str(file)), str(file)))
    for directory in (home, paths.run, paths.log, paths.data):
        private_directory(directory)
    if before != text.encode():
        write_atomic(file, text.encode())
    prepared = NodeHome(paths=paths, settings=load_settings(file), before=before)
    before_table = paths.supervisord.exists()
    if write_process_table(paths, prepared.settings) and not before_table:
        prepared.made.append(paths.supervisord)
    return prepared


def refuse_second_mesh(home: Path) -> None:
    """Raise if the node in `home` belongs to a mesh; looks only, changes nothing."""
    file = home / SETTINGS_FILE
    if not file.exists():
        return
    paths = node_paths(file, load_settings(file))
    if paths.membership.exists():
        raise MeshExistsError(
            f"the node in {home} already belongs to a mesh; nothing was changed",
            hint="certmesh status shows it; another node needs another --home",
        )


def setting_options(lines: tuple[str, ...]) -> dict[tuple[str, str], Any]:
    """Return `--setting section.key=value` options as wanted keys; values are TOML or bare words.

    Raises:
        click.UsageError: Not of that form.
    """
    wanted: dict[tuple[str, str], Any] = {}
    for line in lines:
        name, equals, value = line.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and section.isidentifier() and key.isidentifier()):
            raise click.UsageError(f'--setting wants section.key=value, not "{line}"')
        wanted[section, key] = _value_of(value.strip())
    return wanted


def _value_of(text: str) -> Any:
    try:
        return read_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merged(text: str, file: Path, wanted: Wanted, usual: Wanted) -> str:
    raw = parsed(text, str(file))
    # Backwards, because each key is put right below its heading.
    for (section, key), value in reversed({**usual, **wanted}.items()):
        said = raw.get(section, {}).get(key)
        if said is None:
            text = with_key(text, section, key, value)
        elif (section, key) in wanted and said != _plain(value):
            raise click.UsageError(
                f"{file} already says {section}.{key} = {said!r}: edit the file or drop the option"
            )
    return text


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _refuse_foreign(home: Path) -> None:
    """Raise if `home` holds something that is no node: its permissions are about to be closed."""
    if not home.exists():
        return
    if not home.is_dir():
        raise ConflictError(f"{home} is not a directory", hint="name another --home")
    found = {entry.name for entry in home.iterdir() if not entry.name.startswith(".")} - _HARMLESS
    if found and not found & _OURS:
        raise ConflictError(
            f"{home} is not empty and holds no certmesh node",
            hint="name a new or empty directory with --home",
        )
