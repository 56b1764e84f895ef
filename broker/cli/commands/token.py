"""`certmesh token`: keys for programs that use the API, each with a name, scopes and an end."""

from typing import get_args

import click

from broker.cli.api import segment
from broker.cli.options import DURATION, Noun, pass_session
from broker.cli.prompt import ask_yes
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import due_in, rfc3339, short_id
from broker.clock import wall_s
from broker.runtime.duration import Duration
from broker.runtime.exits import Exit
from broker.wire.control import Ack
from broker.wire.token import Scope, TokenBody, TokenCreated, TokensView

SCOPES: tuple[Scope, ...] = get_args(Scope)


@click.group(cls=Noun)
def token() -> None:
    """Make, list and revoke keys for programs that use the API."""


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=("read",),
    show_default=True,
    help="What it may do; admin is all that a token can. Repeatable.",
)
@click.option("--ttl", type=DURATION, help="How long it is good for (else 30d, at most 366d).")
@pass_session
def create(session: Session, *, name: str, scopes: tuple[Scope, ...], ttl: Duration | None) -> None:
    """Print a token for the program NAME; its secret is shown only now."""
    wish = TokenBody(name=name, scopes=scopes, ttl_s=ttl.s if ttl else 0)
    made = session.api().post("/v1/tokens", TokenCreated, wish)
    if session.json:
        session.screen.object("token-create", public(made))
        return
    session.screen.line(made.token)
    session.screen.note(
        f"for {made.name} ({', '.join(made.scopes)}), good until {rfc3339(made.expires_at)}"
    )
    session.screen.note("send it as:  Authorization: Bearer TOKEN  (keep it in a file, 0600)")


@token.command("list")
@pass_session
def list_(session: Session) -> None:
    """List tokens and what became of them."""
    view = session.api().get("/v1/tokens", TokensView)
    if session.json:
        session.screen.object("token-list", public(view))
        return
    now = wall_s()
    session.screen.table(
        ("ID", "NAME", "STATE", "SCOPES", "EXPIRES IN", "MADE BY"),
        [
            (
                short_id(line.token_id),
                line.name,
                line.state,
                ", ".join(line.scopes),
                due_in(line.expires_at, now) if line.state == "active" else "-",
                line.created_by,
            )
            for line in view.tokens
        ],
    )


@token.command()
@click.argument("name")
@pass_session
def revoke(session: Session, *, name: str) -> int:
    """Make the token NAME (or the one with that id) worthless, now and for ever."""
    if not ask_yes(session, f"Revoke {name}? The program that uses it stops working."):
        session.screen.note("nothing was revoked")
        return Exit.FAILED
    session.api().ask("DELETE", f"/v1/tokens/{segment(name)}", Ack)
    if session.json:
        session.screen.object("token-revoke", {"name": name, "state": "revoked"})
    else:
        session.screen.line(f"token {name} revoked")
    return Exit.OK
