"""`certmesh reload`: the running processes take over what certmesh.toml says now."""

import click

from broker.cli.options import MeshCommand, pass_session
from broker.cli.processtable import is_from_settings, write_process_table
from broker.cli.reloading import Renewal, Stale, check_doors, stale_programs
from broker.cli.sameusers import refuse_other_users
from broker.cli.session import Session
from broker.cli.shape import span
from broker.cli.supervisor import Supervisor
from broker.clock import boottime_ms
from broker.errors import UnavailableError
from broker.runtime.exits import Exit
from broker.units import Millis

RELOAD_MS = 120_000


@click.command(cls=MeshCommand, name="reload")
@click.option("--dry-run", is_flag=True, help="Only say what would start again, and why.")
@pass_session
def reload_node(session: Session, *, dry_run: bool) -> int:
    """Let the running processes take over changed settings, without stopping the node.

    The file is checked first. Only programs whose settings changed start again, one after the
    other: loops, then doors, the broker last. --timeout limits the whole (120 s).
    """
    began = boottime_ms()
    settings, paths = session.settings, session.paths
    supervisor = Supervisor(paths)
    supervisor.wake()
    if supervisor.programs() is None:
        raise UnavailableError(
            f"the node in {session.home} is not running", hint=session.command("up")
        )
    if is_from_settings(paths):
        refuse_other_users(supervisor, settings, session.command("down"))
    check_doors(settings)
    stale = stale_programs(supervisor, paths, settings)
    if dry_run:
        _say(session, stale, (), began, done="would start again")
        return Exit.OK
    write_process_table(paths, settings)
    moved = supervisor.take_over() if is_from_settings(paths) else ()
    left = [one for one in stale if one.program.group not in moved]
    deadline_ms = Millis(began + session.patience_ms(RELOAD_MS))
    renewal = Renewal(supervisor, session.api(), deadline_ms)
    for one in left:
        session.screen.note(f"{one.program.name} starts again{_why(one)}")
        renewal.renew(one.program)
    _say(session, left, moved, began, done="started again")
    return Exit.OK


def _why(one: Stale) -> str:
    return f" ({', '.join(f'[{name}]' for name in one.sections)})" if one.sections else ""


def _say(
    session: Session,
    stale: "tuple[Stale, ...] | list[Stale]",
    moved: tuple[str, ...],
    began: int,
    *,
    done: str,
) -> None:
    took_s = (boottime_ms() - began) / 1000
    if session.json:
        programs = [{"program": one.program.name, "sections": one.sections} for one in stale]
        fields = {"restarted": programs, "taken_over": moved, "took_s": round(took_s, 3)}
        session.screen.object("reload", fields | {"dry_run": done.startswith("would")})
        return
    if moved:
        session.screen.line(f"taken over by supervisord: {', '.join(moved)}")
    if not stale and not moved:
        session.screen.line("nothing to do: every process works with these settings")
    for one in stale:
        session.screen.line(f"{done}: {one.program.name}{_why(one)}")
    if stale and not done.startswith("would"):
        session.screen.line(f"took {span(took_s)}")
