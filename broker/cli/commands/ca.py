"""`certmesh ca`: the certificate authority of this mesh."""

import click

from broker.cli.commands.destroy import destroy
from broker.cli.commands.export import export
from broker.cli.commands.policy import policy
from broker.cli.commands.rollover import rollover
from broker.cli.commands.slot import slot as slot_noun
from broker.cli.options import Noun, pass_session
from broker.cli.prompt import ask_secret, read_secret
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import day, grouped
from broker.wire.authority import AuthorityView, SlotView
from broker.wire.console_api import UnlockBody
from broker.wire.node import NodeView
from broker.wire.slot import UnlockCodeBody

UNLOCK_MS = 60_000
"""Argon2id takes a fraction of a second, on a small board under load several."""


@click.group(cls=Noun, commands=[policy, export, destroy, rollover, slot_noun])
def ca() -> None:
    """Show, unlock or lock the certificate authority."""


@ca.command()
@click.option("--pem", is_flag=True, help="Print the root certificate instead.")
@pass_session
def show(session: Session, *, pem: bool) -> None:
    """Show fingerprint, validity, constraints, lock state, and who signs with it."""
    api = session.api()
    view = api.get("/v1/ca", AuthorityView)
    if pem and not session.json:
        session.screen.block(view.root_pem)
        return
    node = api.get("/v1/node", NodeView)
    if session.json:
        held = {"host": node.host, "role": node.role, "primary": _primary(node)}
        session.screen.object("ca-show", public(view) | held)
    else:
        session.screen.pairs(_facts(view, node))


def _primary(node: NodeView) -> str:
    return node.mesh.primary.host if node.mesh and node.mesh.primary else ""


def _signer(node: NodeView) -> str:
    """Return who signs, and what this node's copy of the key is for."""
    if node.role == "primary":
        return f"{node.host} (this node)"
    here = f"; {node.host} holds the key as {node.role}" if node.role == "standby" else ""
    return f"{_primary(node) or 'unknown'}{here}"


def _facts(view: AuthorityView, node: NodeView) -> list[tuple[str, str]]:
    slots = ", ".join(f"{_kind(slot)} (since {day(slot.created_at)})" for slot in view.slots)
    return [
        ("mesh", f"{view.mesh_name}  ({view.domain})"),
        ("state", f"{view.state}, term {view.term}"),
        ("signed by", _signer(node)),
        ("sha256", grouped(view.pin)),
        ("root", f"valid until {day(view.root_not_after)}"),
        ("issuing", f"valid until {day(view.issuing_not_after)}"),
        ("names", ", ".join(view.permitted_names) or "any"),
        ("networks", ", ".join(view.permitted_networks) or "any"),
        ("unlocked by", slots or "-"),
    ]


def _kind(slot: SlotView) -> str:
    return f"{slot.kind} {slot.peer}" if slot.peer else slot.kind


@ca.command()
@click.option("--passphrase-file", metavar="PATH|-", help="Read the passphrase from there.")
@click.option("--code", "by_code", is_flag=True, help="Ask for a code of the authenticator.")
@click.option("--code-file", metavar="PATH|-", help="Read the code from there.")
@pass_session
def unlock(
    session: Session, *, passphrase_file: str | None, by_code: bool, code_file: str | None
) -> None:
    """Make the CA key usable. A wrong passphrase or code changes nothing (exit 7)."""
    if by_code or code_file:
        if passphrase_file:
            raise click.UsageError("a passphrase or a code, not both")
        _unlock_by_code(session, code_file)
        return
    secret = (
        read_secret(passphrase_file)
        if passphrase_file
        else ask_secret(session, "CA passphrase", "--passphrase-file")
    )
    body = UnlockBody(passphrase=secret)
    _say(session, "ca-unlock", session.api(UNLOCK_MS).post("/v1/ca/unlock", AuthorityView, body))


def _unlock_by_code(session: Session, code_file: str | None) -> None:
    """Unlock by the TOTP-guarded slot; the code comes from the terminal, or from a file."""
    code = (
        read_secret(code_file)
        if code_file
        else ask_secret(session, "Code of the authenticator", "--code-file")
    )
    body = UnlockCodeBody(code="".join(code.split()))
    view = session.api(UNLOCK_MS).post("/v1/ca/unlock-code", AuthorityView, body)
    _say(session, "ca-unlock", view)


@ca.command()
@pass_session
def lock(session: Session) -> None:
    """Forget the CA key until somebody unlocks it."""
    _say(session, "ca-lock", session.api().post("/v1/ca/lock", AuthorityView))


def _say(session: Session, command: str, view: AuthorityView) -> None:
    if session.json:
        session.screen.object(command, public(view))
    else:
        session.screen.line(f"CA {view.state}")
