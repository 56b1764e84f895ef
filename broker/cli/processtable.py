"""The process table of a node: the packaged one, as its settings want it.

`[pool]` says how many processes of the kinds that scale out there are, `[notify]` whether anybody
is to be told; what nobody needs is left out. The file carries a first line that says who writes it:
without that line it is a person's, and is kept as it is.
"""

import re
import shlex
import sys
from importlib import resources
from pathlib import Path

import broker.runtime
from broker.runtime.files import write_atomic
from broker.runtime.paths import Paths
from broker.runtime.settings import Settings
from broker.runtime.users import user_name
from broker.wire.ids import Service

PROCESS_TABLE = "supervisord.conf"
MARK = "; certmesh writes this file at every `certmesh up`, from certmesh.toml."
EXPLANATION = f"""{MARK}
; [pool] and [notify] there decide what runs. Without the first line the file is yours.
;
"""
_SECTION = re.compile(r"^(?=\[)", re.MULTILINE)
_HEADING = re.compile(r"\[program:([\w-]+)\]")


def write_process_table(paths: Paths, settings: Settings) -> bool:
    """Write supervisord.conf as the settings want it; return whether anything changed.

    A table without our first line is left alone.
    """
    wanted = process_table(settings)
    try:
        found = paths.supervisord.read_text(encoding="utf-8")
    except FileNotFoundError:
        found = ""
    if found == wanted or (found and not found.startswith(MARK)):
        return False
    write_atomic(paths.supervisord, wanted.encode())
    return True


def is_from_settings(paths: Paths) -> bool:
    """Return whether supervisord.conf is ours to write; one without our first line is a person's.

    A command that was killed may have written it and not told supervisord: asking whether it was
    written just now is not enough.
    """
    try:
        return paths.supervisord.read_bytes().startswith(MARK.encode())
    except FileNotFoundError:
        return False


def lacks(paths: Paths, settings: Settings) -> tuple[str, ...]:
    """Return the programs that the settings want and a table of a person's own does not have."""
    if is_from_settings(paths):
        return ()
    found = set(_HEADING.findall(paths.supervisord.read_text(encoding="utf-8")))
    wanted = set(_HEADING.findall(process_table(settings)))
    usual = set(_HEADING.findall(process_table(Settings())))
    return tuple(sorted((wanted - usual) - found))


def process_table(settings: Settings) -> str:
    """Return the process table for a node with these settings."""
    counts = {
        Service.RENEWAL: settings.pool.renewal,
        Service.GATEWAY: settings.pool.gateway,
        Service.REMOTE_RENEWAL: settings.pool.remote_renewal,
        Service.NOTIFY: min(1, len(settings.notify.targets)),
    }
    sections = _SECTION.split(packaged_process_table())
    table = "".join(_owned(_scaled(section, counts), settings) for section in sections)
    if settings.users.differ:
        # Each process reads in supervisord.log how it ended last time; it sets its own umask.
        table = table.replace("\numask=077", "\numask=027")
    if settings.node.run_dir:
        place = settings.node.run_dir.rstrip("/").replace("%", "%%")
        table = table.replace("%(here)s/run/", f"{place}/")
    # shlex quoting because supervisord splits like a shell, %% because it expands %(...)s.
    interpreter = shlex.quote(sys.executable).replace("%", "%%")
    return EXPLANATION + table.replace("command=python ", f"command={interpreter} ")


def _owned(section: str, settings: Settings) -> str:
    """Return a section whose program runs as the user that `[users]` names for it."""
    heading = _HEADING.match(section)
    name = user_name(settings.users, heading[1]) if heading else ""
    if heading is None or not name:
        return section
    # supervisord changes the user and leaves HOME as it was: root's.
    lines = f'{heading[0]}\nuser={name}\nenvironment=HOME="/",USER="{name}",LOGNAME="{name}"'
    return section.replace(heading[0], lines, 1)


def packaged_process_table() -> str:
    """Return the process table that came with this release."""
    packaged = resources.files(broker.runtime).joinpath(PROCESS_TABLE)
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    checkout = Path(broker.runtime.__file__).parents[2] / PROCESS_TABLE
    return checkout.read_text(encoding="utf-8")


def _scaled(section: str, counts: dict[Service, int]) -> str:
    """Return a section with as many processes as wanted; nothing for none."""
    heading = _HEADING.match(section)
    if heading is None or heading[1] not in counts:
        return section
    name = heading[1]
    count = counts[Service(name)]
    if count == 0:
        return ""
    if "\nnumprocs=" in section:
        return re.sub(r"^numprocs=\d+$", f"numprocs={count}", section, flags=re.MULTILINE)
    if count == 1:
        return section
    numbered = f"{name}-%(process_num)d"
    several = f"{heading[0]}\nnumprocs={count}\nprocess_name={numbered}"
    return section.replace(heading[0], several, 1).replace(
        f"/log/{name}.log", f"/log/{numbered}.log"
    )
