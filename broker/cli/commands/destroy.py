"""`certmesh ca destroy`: the end of a mesh, on purpose."""

import click
import msgspec

from broker.cli.commands.up import start_pool, stop_pool
from broker.cli.options import MeshCommand, pass_session
from broker.cli.program import Refusal, crashed, run
from broker.cli.prompt import ask_yes, require_person
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import clean
from broker.errors import (
    ConflictError,
    LedgerDamagedError,
    MalformedMessageError,
    NoMeshError,
    NotPrimaryError,
)
from broker.runtime.exits import Exit
from broker.wire.backup import Destroyed, DestroyWish
from broker.wire.node import Membership
from broker.wire.plain import decode_json


@click.command(cls=MeshCommand)
@click.option("--mesh", default="", metavar="NAME", help="The name of the mesh, to be sure.")
@pass_session
def destroy(session: Session, *, mesh: str) -> int:
    """End this mesh: its keys are overwritten and removed, its audit trail is set aside.

    Asks for the mesh's name and for a yes, also with --json; a script gives --mesh NAME --yes. No
    certificate of the mesh can be renewed afterwards. Backups stay where they are.
    """
    membership = _membership(session)
    if not mesh:
        require_person(session, "the name of the mesh is needed", "--mesh NAME")
        mesh = str(click.prompt("Name of the mesh to destroy", err=True))
    if mesh != membership.mesh_name:
        raise ConflictError(
            f"this node belongs to the mesh {membership.mesh_name}, not to {clean(mesh)}; "
            "nothing was changed",
            hint="certmesh ca show",
        )
    question = f"Destroy the CA of {mesh}? No certificate of it will ever be renewed again"
    if not ask_yes(session, question):
        session.screen.note("nothing was changed")
        return Exit.FAILED
    ran = stop_pool(session)
    try:
        done = _program(session, DestroyWish(mesh, session.operator or "operator"))
    except (ConflictError, NotPrimaryError):
        if ran:  # nothing was changed: then the node goes on as well
            start_pool(session)
        raise
    _say(session, done)
    return Exit.OK


def _membership(session: Session) -> Membership:
    path = session.paths.membership
    try:
        return decode_json(path.read_bytes(), Membership)
    except FileNotFoundError:
        raise NoMeshError(
            f"the node in {session.home} belongs to no mesh", hint="there is nothing to destroy"
        ) from None
    except (OSError, MalformedMessageError) as error:
        raise LedgerDamagedError(f"cannot read {path}: {error}") from None


def _program(session: Session, wish: DestroyWish) -> Destroyed:
    paths = session.paths
    given = msgspec.json.encode(wish)
    done = run("broker", paths, "destroy", str(paths.settings), given=given)
    try:
        if done.status == 0:
            return msgspec.json.decode(done.output, type=Destroyed)
        raise msgspec.json.decode(done.output, type=Refusal).error()
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise crashed("broker", done.status, paths) from None


def _say(session: Session, done: Destroyed) -> None:
    if session.json:
        session.screen.object("ca-destroy", public(done))
        return
    session.screen.line(f"the mesh {done.mesh_name} is destroyed")
    session.screen.line(f"its {done.rows} journal rows are kept in {done.kept}")
    session.screen.line("backups were not touched; whoever has the kit can restore from them")
