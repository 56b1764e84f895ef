"""`certmesh ca`: the certificate authority of this mesh."""

import click

from broker.cli.options import Noun, pass_session
from broker.cli.prompt import ask_secret, read_secret
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import day, grouped
from broker.wire.authority import AuthorityView
from broker.wire.console_api import UnlockBody

UNLOCK_MS = 60_000
"""Argon2id takes a fraction of a second, on a small board under load several."""


@click.group(cls=Noun)
def ca() -> None:
    """Show, unlock or lock the certificate authority."""


@ca.command()
@click.option("--pem", is_flag=True, help="Print the root certificate instead.")
@pass_session
def show(session: Session, *, pem: bool) -> None:
    """Show fingerprint, validity, constraints and lock state."""
    view = session.api().get("/v1/ca", AuthorityView)
    if session.json:
        session.screen.object("ca-show", public(view))
    elif pem:
        session.screen.block(view.root_pem)
    else:
        session.screen.pairs(_facts(view))


def _facts(view: AuthorityView) -> list[tuple[str, str]]:
    slots = ", ".join(f"{slot.kind} (since {day(slot.created_at)})" for slot in view.slots)
    return [
        ("mesh", f"{view.mesh_name}  ({view.domain})"),
        ("state", f"{view.state}, term {view.term}"),
        ("sha256", grouped(view.pin)),
        ("root", f"valid until {day(view.root_not_after)}"),
        ("issuing", f"valid until {day(view.issuing_not_after)}"),
        ("names", ", ".join(view.permitted_names) or "any"),
        ("networks", ", ".join(view.permitted_networks) or "any"),
        ("unlocked by", slots or "-"),
    ]


@ca.command()
@click.option("--passphrase-file", metavar="PATH|-", help="Read the passphrase from there.")
@pass_session
def unlock(session: Session, *, passphrase_file: str | None) -> None:
    """Make the CA key usable. A wrong passphrase changes nothing (exit 7)."""
    secret = (
        read_secret(passphrase_file)
        if passphrase_file
        else ask_secret(session, "CA passphrase", "--passphrase-file")
    )
    body = UnlockBody(passphrase=secret)
    _say(session, "ca-unlock", session.api(UNLOCK_MS).post("/v1/ca/unlock", AuthorityView, body))


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
