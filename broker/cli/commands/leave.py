"""`certmesh leave`: this host stops being a member.

The CA is told first, while the certificate still proves who leaves; then the pool stops; then the
private key is deleted and the rest set aside. Killed anywhere, the same command goes on.
"""

from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from broker.cli.aside import Begun, begin, begun, set_aside
from broker.cli.commands.up import stop_pool
from broker.cli.options import MeshCommand, pass_session
from broker.cli.program import Refusal, crashed, follow
from broker.cli.prompt import ask_yes
from broker.cli.session import Session
from broker.clock import wall_s
from broker.errors import (
    ConflictError,
    ErrorCode,
    MalformedMessageError,
    MeshError,
    NoMeshError,
    UnavailableError,
)
from broker.runtime.exits import Exit
from broker.wire.node import Endpoint, Membership, NodeView
from broker.wire.plain import decode_json

PROGRAM = "workers.enroll"
UNTOLD = frozenset({ErrorCode.PEER_UNREACHABLE, ErrorCode.NOT_PRIMARY, ErrorCode.NOT_A_MEMBER})
"""Nobody could be told, or not by this certificate any more: `--force` leaves all the same."""


@click.command(cls=MeshCommand)
@click.option("--force", is_flag=True, help="Leave although no primary answers.")
@pass_session
def leave(session: Session, *, force: bool) -> int:
    """Leave the mesh: certificates end, the private key is deleted, the rest is set aside.

    A node that holds the CA key cannot leave; it has to give the key back first.
    """
    membership = _membership(session)
    _refuse_key_holder(session, membership)
    note = begun(session.paths)
    if note is None:
        question = f"Leave {membership.mesh_name} as {membership.host} and delete its private key?"
        if not ask_yes(session, question):
            session.screen.note("nothing was changed")
            return Exit.FAILED
        told = _tell(session, membership, force=force)
        note = begin(session.paths, _today(), told=told)
    stop_pool(session)
    _say(session, membership, note, str(set_aside(session.paths, note)))
    return Exit.OK


def _membership(session: Session) -> Membership:
    path = session.paths.membership
    try:
        return decode_json(path.read_bytes(), Membership)
    except FileNotFoundError:
        raise NoMeshError(
            f"the node in {session.home} belongs to no mesh", hint="there is nothing to leave"
        ) from None
    except (OSError, MalformedMessageError) as error:
        raise NoMeshError(f"cannot read {path}: {error}", hint="restore it from a backup") from None


def _refuse_key_holder(session: Session, membership: Membership) -> None:
    """Refuse where the CA key lies, with or without `--force`: it must not be thrown away so."""
    if session.paths.authority.exists():
        raise ConflictError(
            f"{membership.host} holds the CA key of {membership.mesh_name}",
            hint=f"a standby: certmesh standby remove {membership.host}, on the primary; "
            "the primary: let a standby take over first (certmesh standby promote, there)",
        )


def _tell(session: Session, membership: Membership, *, force: bool) -> bool:
    """Return whether the CA knows; raises unless `force` when nobody could be told."""
    try:
        _ask_to_leave(session)
    except MeshError as error:
        if error.code not in UNTOLD:
            raise
        if not force:
            hint = f"{error.hint}; or leave without telling it: {session.command('leave --force')}"
            raise type(error)(error.detail, hint=hint.removeprefix("; or ")) from None
        session.screen.warn(
            f"the CA was not told ({error.detail}) and still lists {membership.host}; "
            f"there: certmesh member revoke {membership.host}"
        )
        return False
    return True


def _ask_to_leave(session: Session) -> None:
    """Let the program that speaks mutual TLS tell the primary."""
    order: dict[str, Any] = {"leave": True, "primary": _primary(session)}
    last: dict[str, Any] = {}
    settings = str(session.paths.settings)
    for saying in follow(PROGRAM, session.paths, settings, given=msgspec.json.encode(order)):
        last = saying
    if last.get("kind") == "fault":
        raise msgspec.convert(last, Refusal, strict=False).error()
    if last.get("kind") != "left":
        raise crashed(PROGRAM, 0, session.paths)


def _primary(session: Session) -> Endpoint | None:
    """Return where the running pool sees the primary; None when it does not run or know."""
    try:
        mesh = session.api().get("/v1/node", NodeView).mesh
    except (UnavailableError, NoMeshError):
        return None
    return mesh.primary if mesh is not None else None


def _today() -> str:
    return datetime.fromtimestamp(wall_s(), UTC).date().isoformat()


def _say(session: Session, membership: Membership, note: Begun, place: str) -> None:
    if session.json:
        names = {"host": membership.host, "mesh": membership.mesh_name}
        session.screen.object("leave", {**names, "told": note.told, "aside": place})
        return
    session.screen.line(f"{membership.host} left {membership.mesh_name}")
    session.screen.line(f"its private key is deleted; the rest is in {place}")
