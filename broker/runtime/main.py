"""The outermost frame of every process: arguments, settings, umask, parent, exit status."""

import os
import resource
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from broker.errors import MeshError, SettingsError
from broker.runtime.exits import Exit
from broker.runtime.logs import log_crash
from broker.runtime.parent import die_with_parent
from broker.runtime.paths import Paths, node_paths
from broker.runtime.settings import Settings, load_settings

ONCE = "--once"
FOREGROUND = "--foreground"
DESCRIPTORS_MAX = 65_536


def run_process(main: Callable[[Settings, Paths], int], argv: Sequence[str] | None = None) -> int:
    """Run `main` as a process of a node and return its exit status.

    `python -m PACKAGE SETTINGS [--once] [--foreground]`: with either flag the process does not
    die with its parent, because a person started it.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    flags = {word for word in given if word in (ONCE, FOREGROUND)}
    names = [word for word in given if word not in flags]
    if len(names) != 1 or names[0].startswith("-"):
        sys.stderr.write(f"usage: python -m PACKAGE SETTINGS [{ONCE}] [{FOREGROUND}]\n")
        return Exit.USAGE
    os.umask(0o077)
    try:
        if not flags:
            die_with_parent()
        settings = load_settings(Path(names[0]))
        paths = node_paths(Path(names[0]), settings)
        _raise_descriptor_limit()
        return main(settings, paths)
    except SettingsError as error:
        return _refuse(error, Exit.SETTINGS)
    except KeyboardInterrupt:
        return Exit.INTERRUPTED
    except Exception as error:  # noqa: BLE001 (the outermost frame: log it and die)
        log_crash(error)
        return Exit.FAILED


def wants_once(argv: Sequence[str] | None = None) -> bool:
    """Return whether one round was asked for."""
    return ONCE in (sys.argv[1:] if argv is None else argv)


def _refuse(error: MeshError, status: Exit) -> int:
    hint = f" ({error.hint})" if error.hint else ""
    sys.stderr.write(f"certmesh: {error.detail}{hint}\n")
    return status


def _raise_descriptor_limit() -> None:
    """Lift the soft limit: libzmq aborts the process when it runs out of descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
