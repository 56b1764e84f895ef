"""Directories that somebody else may have put in the way of ours.

In a directory that everybody may write to, such as /tmp, whoever comes first makes the name. A
directory of another user there stays that user's whatever its mode, and a link leads where that
user wants. So every part of a path that lies in such a directory must belong to root or to us.
"""

import os
import stat
from pathlib import Path

from broker.errors import SettingsError
from broker.runtime.paths import Paths

ROOT_UID = 0


def refuse_planted(path: Path) -> None:
    """Let `path` pass if nobody else could have put any part of it there.

    Raises:
        SettingsError: Somebody could; names the part and its owner.
    """
    parts = Path(os.path.abspath(path))  # noqa: PTH100 (links are what is looked for)
    for part in (*reversed(parts.parents), parts):
        try:
            found, around = part.lstat(), part.parent.stat()
        except OSError:  # not there yet, or not to be seen: whoever opens it says why
            return
        trusted = found.st_uid in (ROOT_UID, os.geteuid())
        if around.st_mode & stat.S_IWOTH and not trusted:
            kind = "link" if stat.S_ISLNK(found.st_mode) else "directory"
            raise SettingsError(
                f"{part} is a {kind} of uid {found.st_uid}, in a directory open to everybody",
                hint=f"choose another place, or remove it and see who made it (ls -ld {part})",
            )


def refuse_planted_home(paths: Paths) -> None:
    """Let a node start whose directories nobody else could have put where they are.

    Raises:
        SettingsError: Somebody could.
    """
    for directory in (paths.home, paths.log, paths.run, paths.data):
        refuse_planted(directory)
