"""A running node keeps its users: `[users]` counts from the next start.

Files change their owners only while nothing of the node runs (`broker.cli.owners`). Programs that
were started again as other users meanwhile would find everything closed to them.
"""

from pathlib import Path

from broker.cli.supervisor import Supervisor
from broker.errors import SettingsError
from broker.runtime.settings import Settings
from broker.runtime.users import BROKER, user_name, user_of
from broker.wire.ids import Service

_OURS = frozenset({BROKER, *Service})


def refuse_other_users(supervisor: Supervisor, settings: Settings, then: str) -> None:
    """Let a node be changed while it runs, if its programs are the users of the settings.

    Args:
        supervisor: Of the node; nothing is refused where it does not answer.
        settings: As the file has them now.
        then: The command that stops the node.

    Raises:
        SettingsError: A program runs as somebody else.
    """
    starter = supervisor.pid()
    usual = _uid_of(starter) if starter is not None else None
    if usual is None:
        return
    for program in supervisor.programs() or ():
        if program.state != "RUNNING" or program.group not in _OURS:
            continue
        named = user_name(settings.users, program.group)
        wanted = user_of(settings.users, program.group).uid if named else usual
        if _uid_of(program.pid) not in {None, wanted}:
            raise SettingsError(
                f"[users]: {program.name} is to be uid {wanted}, and runs as another user",
                hint=f"{then}, then start it again; nothing was changed for what runs",
            )


def _uid_of(pid: int) -> int | None:
    """Return the user of a process, None when it is gone or not to be seen."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), None)
