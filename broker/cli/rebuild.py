"""Homes for a backup: a scratch one to look into it, and the one that is made of it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker.cli.nodehome import HEADER, NodeHome, prepare, refuse_second_mesh
from broker.cli.nodeoptions import NodeOptions, usual_settings
from broker.cli.session import SETTINGS_FILE
from broker.cli.tomlfile import literal, parsed, with_key
from broker.errors import MeshError
from broker.runtime.files import private_directory, write_atomic
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import parse_settings

PLACES = (("node", "data_dir"), ("node", "run_dir"))
"""Directories of the old machine: the new one's home decides."""


@contextmanager
def scratch_home() -> Iterator[Paths]:
    """Yield the paths of an empty private home that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="certmesh-look-") as name:
        home = Path(name)
        home.chmod(0o700)
        (home / "log").mkdir(mode=0o700)
        (home / SETTINGS_FILE).write_text(HEADER, encoding="utf-8")
        yield node_paths(home / SETTINGS_FILE, parse_settings({}, name))


def check_place(home: Path) -> None:
    """Refuse a home that is a node of a mesh, before anybody types a secret."""
    refuse_second_mesh(home)


def rebuilt_home(home: Path, settings: str, host: str, options: NodeOptions) -> NodeHome:
    """Return the home of a restored node, prepared with the settings of the lost one.

    A settings file that is there stays. Else the backup's is taken, without the directories of the
    other machine, and options overrule it.

    Raises:
        MeshError: As `prepare`.
    """
    file = home / SETTINGS_FILE
    wanted = {**options.wanted(), ("node", "name"): host}
    made = not file.exists()
    if made:
        private_directory(home)
        write_atomic(file, _settings(settings, wanted).encode())
    try:
        prepared = prepare(home, wanted, {} if _addresses(settings) else usual_settings(host))
    except BaseException:
        if made:
            file.unlink(missing_ok=True)
        raise
    if made:
        prepared.before = None
    return prepared


def _settings(text: str, wanted: dict[tuple[str, str], object]) -> str:
    """Return the settings of the backup as they are to be here; comments stay where they can."""
    try:
        raw = parsed(text, "the settings in the backup")
        parse_settings(raw, "the settings in the backup")
    except MeshError:
        return HEADER
    changed = {(section, key) for section, key in (*PLACES, *wanted) if key in raw.get(section, {})}
    if changed:
        text = _without(text, changed)
    for (section, key), value in reversed(list(wanted.items())):
        text = with_key(text, section, key, value)
    return text


def _without(text: str, keys: set[tuple[str, str]]) -> str:
    """Return the settings without these keys: line by line, or written anew where that fails."""
    section, kept = "", []
    for line in text.splitlines(keepends=True):
        stripped = line.strip()
        if stripped.startswith("["):
            section = stripped.strip("[] ")
        elif (section, stripped.partition("=")[0].strip()) in keys:
            continue
        kept.append(line)
    lighter = "".join(kept)
    raw = parsed(text, "the settings in the backup")
    for name, key in keys:
        raw.get(name, {}).pop(key, None)
    if _parses_as(lighter, raw):
        return lighter
    return HEADER + "".join(_table(name, table) for name, table in raw.items())


def _parses_as(text: str, raw: dict[str, object]) -> bool:
    try:
        return parsed(text, "settings") == raw
    except MeshError:
        return False


def _table(name: str, table: Any) -> str:
    tables = table if isinstance(table, list) else [table]
    heading = f"[[{name}]]" if isinstance(table, list) else f"[{name}]"
    lines = ["".join(f"{k} = {literal(v)}\n" for k, v in entry.items()) for entry in tables]
    return "".join(f"\n{heading}\n{body}" for body in lines)


def _addresses(settings: str) -> bool:
    try:
        return bool(parsed(settings, "settings").get("node", {}).get("addresses"))
    except MeshError:
        return False
