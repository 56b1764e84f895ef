"""Which decider this process has: the setting, or the one named on the command line."""

import os
import pwd
from collections.abc import Sequence

from broker.runtime.settings import ApprovalSettings
from workers.approval.decider import Decider, DenyDecider, QueueDecider
from workers.approval.prompt import PromptDecider
from workers.approval.terminal import Terminal

FLAG = "--decider"
NAMES = ("deny", "queue", "prompt")


def split_arguments(argv: Sequence[str]) -> tuple[str, list[str]]:
    """Return the decider named on the command line (or an empty string) and the other arguments.

    Raises:
        ValueError: The flag is there without a decider that exists.
    """
    rest = list(argv)
    if FLAG not in rest:
        return "", rest
    at = rest.index(FLAG)
    named = rest[at + 1] if at + 1 < len(rest) else ""
    if named not in NAMES:
        raise ValueError(f"{FLAG} takes one of {', '.join(NAMES)}")
    return named, rest[:at] + rest[at + 2 :]


def make_decider(name: str, settings: ApprovalSettings) -> Decider:
    """Return the decider called `name`; whatever is unknown denies."""
    match name:
        case "prompt":
            return PromptDecider(Terminal, login_name(), settings.timeout)
        case "queue":
            return QueueDecider()
        case _:
            return DenyDecider()


def login_name() -> str:
    """Return who runs this process; the environment is not asked, it says what it is told."""
    uid = os.getuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
