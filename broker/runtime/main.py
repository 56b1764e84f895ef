"""The outermost frame of every process: arguments, settings, umask, parent, rights, exit status."""

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
from broker.runtime.privileges import NOTHING, Needs, give_up, keep_secrets
from broker.runtime.restraint import hold_back, note_settings
from broker.runtime.settings import Settings, load_settings

ONCE = "--once"
FOREGROUND = "--foreground"
DESCRIPTORS_MAX = 65_536
DESCRIPTORS_MIN = 512
"""A broker with ten workers has 50 open; below this its guard against floods has no room to act."""


def run_process(
    main: Callable[[Settings, Paths], int],
    argv: Sequence[str] | None = None,
    needs: Needs = NOTHING,
) -> int:
    """Run `main` as a process of a node and return its exit status.

    `python -m PACKAGE SETTINGS [--once] [--foreground]`: with either flag the process does not
    die with its parent, because a person started it; it also keeps that person's rights to files.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    flags = {word for word in given if word in (ONCE, FOREGROUND)}
    names = [word for word in given if word not in flags]
    if len(names) != 1 or names[0].startswith("-"):
        sys.stderr.write(f"usage: python -m PACKAGE SETTINGS [{ONCE}] [{FOREGROUND}]\n")
        return Exit.USAGE
    os.umask(0o077)
    try:
        keep_secrets()
        if not flags:
            die_with_parent()
            hold_back(Path(names[0]).parent)
        settings = load_settings(Path(names[0]))
        paths = node_paths(Path(names[0]), settings)
        _raise_descriptor_limit()
        if not flags:
            note_settings(paths.home, settings)
            give_up(needs, paths, settings)
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
    """Lift the soft limit: libzmq aborts the process when it runs out of descriptors.

    Raises:
        SettingsError: This process may never have as many as it needs.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS_MIN:
        raise SettingsError(
            f"this process may open {hard} files, and needs {DESCRIPTORS_MIN}",
            hint="raise the limit: `ulimit -Hn`, or LimitNOFILE= of the service",
        )
    wanted = DESCRIPTORS_MAX if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_MAX)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
