"""`certmesh up` and `certmesh down`."""

import os
import select

import click

from broker.cli.options import MeshCommand, pass_session
from broker.cli.owners import settle_owners
from broker.cli.processtable import is_from_settings, lacks, write_process_table
from broker.cli.program import tail
from broker.cli.readiness import Readiness, log_of, look
from broker.cli.sameusers import refuse_other_users
from broker.cli.session import Session
from broker.cli.shape import span
from broker.cli.supervisor import Grip, Supervisor, environment
from broker.clock import boottime_ms
from broker.errors import DeadlineError, InternalError, MeshError
from broker.runtime.exits import Exit
from broker.runtime.planted import refuse_planted_home
from broker.runtime.restraint import Starts

UP_MS = 60_000
DOWN_MS = 60_000
LOOK_MS = 100
"""Between two looks; a program needs seconds to start, so this costs nothing that shows."""


@click.command(cls=MeshCommand)
@click.option("--wait/--no-wait", default=True, help="Wait until the node is ready (usual).")
@click.option("--foreground", is_flag=True, help="Become supervisord, for systemd and containers.")
@pass_session
def up(session: Session, *, wait: bool, foreground: bool) -> int:
    """Start this node's processes and wait until they are ready.

    When they run already, takes over what [pool] and [notify] say now, and touches nothing else.
    --timeout limits the waiting (60 s).
    """
    refuse_planted_home(session.paths)
    supervisor = Supervisor(session.paths)
    write_process_table(session.paths, session.settings)
    missing = lacks(session.paths, session.settings)
    if missing:
        session.screen.warn(
            f"certmesh.toml asks for {', '.join(missing)}, and {session.paths.supervisord} is your "
            "own: add it there, or remove that file and run this again"
        )
    if foreground:
        settle_owners(session.paths, session.settings)
        Starts(session.home).forget_all()
        os.chdir(session.home)
        line = supervisor.foreground_line()
        os.execve(line[0], line, environment())  # noqa: S606 (our own interpreter)
    began = boottime_ms()
    if supervisor.wake():
        session.screen.warn("supervisord had been stopped by a signal; it goes on now")
    running = supervisor.programs() is not None
    if running:
        if is_from_settings(session.paths):
            refuse_other_users(supervisor, session.settings, session.command("down"))
        moved = supervisor.take_over() if is_from_settings(session.paths) else ()
        if moved:
            session.screen.note(f"taken over from certmesh.toml: {', '.join(moved)}")
        supervisor.revive()
    else:
        settle_owners(session.paths, session.settings)
        supervisor.start()
    try:
        found = _wait(session, supervisor) if wait else Readiness("")
    except MeshError as error:
        # Whatever the code of the part that failed: the node did not come up, which is status 1.
        raise InternalError(error.detail, hint=error.hint) from None
    _say_up(session, found, running=running, took_s=(boottime_ms() - began) / 1000)
    return Exit.OK


def _wait(session: Session, supervisor: Supervisor) -> Readiness:
    """Return once the node is ready; says what it waits for whenever that changes."""
    deadline = boottime_ms() + session.patience_ms(UP_MS)
    api, said = session.api(), ""
    nothing = select.poll()
    while True:
        found = look(supervisor, api, session.settings)
        if not found.missing:
            return found
        if found.missing != said:
            said = found.missing
            session.screen.note(f"waiting for {said}")
        if boottime_ms() > deadline:
            log = log_of(session.paths, found.culprit)
            raise DeadlineError(
                f"not ready in time: still waiting for {found.missing}\n{tail(log)}",
                hint=f"see {log}, or wait longer with --timeout",
            )
        nothing.poll(LOOK_MS)


def _say_up(session: Session, found: Readiness, *, running: bool, took_s: float) -> None:
    if session.json:
        session.screen.object(
            "up",
            {
                "started": not running,
                "programs": found.programs,
                "ca_locked": found.locked,
                "took_s": round(took_s, 3),
            },
        )
        return
    how = "was running already" if running else f"started in {took_s:.1f} s"
    count = f": {found.programs} programs run" if found.programs else ""
    session.screen.line(f"node {how}{count}")
    if found.locked:
        unlock = session.command("ca unlock")
        session.screen.warn(f"the CA is locked; to issue certificates: {unlock}")


@click.command(cls=MeshCommand)
@pass_session
def down(session: Session) -> int:
    """Stop this node's processes, workers before the broker.

    Returns when they are gone; a node that does not run is no error.
    """
    began = boottime_ms()
    stopped = stop_pool(session)
    if session.json:
        took_s = (boottime_ms() - began) / 1000
        session.screen.object("down", {"stopped": stopped, "took_s": round(took_s, 3)})
    elif not stopped:
        session.screen.line(f"the node in {session.home} was not running")
    else:
        session.screen.line(f"node stopped in {span((boottime_ms() - began) / 1000)}")
    return Exit.OK


def stop_pool(session: Session) -> bool:
    """Stop this node's processes and wait until they are gone; return whether any ran.

    Raises:
        InternalError: They did not stop in time.
    """
    grip = Supervisor(session.paths).grip()
    if grip is None:
        return False
    try:
        _stop(session, grip)
    finally:
        grip.release()
    return True


def start_pool(session: Session) -> None:
    """Start this node's processes again; nothing waits for them.

    Raises:
        InternalError: supervisord refused.
    """
    session.screen.note("starting the node again")
    write_process_table(session.paths, session.settings)
    settle_owners(session.paths, session.settings)
    Supervisor(session.paths).start()


def _stop(session: Session, grip: Grip) -> None:
    """Signal supervisord and wait until it is gone."""
    session.screen.note("stopping workers, then the broker")
    grip.terminate()
    ended = select.poll()
    ended.register(grip.descriptor, select.POLLIN)
    patience_ms = session.patience_ms(DOWN_MS)
    if not ended.poll(patience_ms):
        raise InternalError(
            f"supervisord (pid {grip.pid}) still runs after {patience_ms / 1000:g} s",
            hint=f"see {session.paths.log}, or wait longer with --timeout",
        )
