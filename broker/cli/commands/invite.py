"""`certmesh invite`: single-use tickets, each bound to one host."""

import click

from broker.cli.api import segment
from broker.cli.choice import meant
from broker.cli.options import DURATION, Noun, pass_session
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import due_in, rfc3339, short_id
from broker.clock import wall_s
from broker.runtime.duration import Duration
from broker.wire.console_api import InviteBody, InviteCreated
from broker.wire.control import Ack
from broker.wire.enrollment import InvitesView


@click.group(cls=Noun)
def invite() -> None:
    """Make, list and revoke single-use tickets for a host."""


@invite.command()
@click.argument("host")
@click.option("--ttl", type=DURATION, help="How long it is good for (else the node's setting).")
@click.option("--san", multiple=True, metavar="NAME", help="Allow this extra name. Repeatable.")
@pass_session
def create(session: Session, *, host: str, ttl: Duration | None, san: tuple[str, ...]) -> None:
    """Print an invite for HOST; its secret is shown only now."""
    wish = InviteBody(host=host, sans=san, ttl_s=ttl.s if ttl else 0)
    made = session.api().post("/v1/invites", InviteCreated, wish)
    if session.json:
        session.screen.object("invite-create", public(made))
        return
    session.screen.line(made.invite)
    session.screen.note(f"for {made.host}, good until {rfc3339(made.expires_at)}, once")
    session.screen.note("there:  certmesh join 'INVITE'")


@invite.command("list")
@pass_session
def list_(session: Session) -> None:
    """List invites and what became of them."""
    view = session.api().get("/v1/invites", InvitesView)
    if session.json:
        session.screen.object("invite-list", public(view))
        return
    now = wall_s()
    session.screen.table(
        ("ID", "HOST", "STATE", "EXPIRES IN", "EXTRA NAMES"),
        [
            (
                short_id(line.invite_id),
                line.host,
                line.state,
                due_in(line.expires_at, now) if line.state == "open" else "-",
                ", ".join(line.sans) or "-",
            )
            for line in view.invites
        ],
    )


@invite.command()
@click.argument("invite_id", metavar="ID")
@pass_session
def revoke(session: Session, *, invite_id: str) -> None:
    """Make an unused invite worthless. ID may be its beginning, or the host."""
    api = session.api()
    known = api.get("/v1/invites", InvitesView).invites
    opened = [(line.invite_id, line.host) for line in known if line.state == "open"]
    chosen = meant(invite_id, opened, "open invite")
    api.ask("DELETE", f"/v1/invites/{segment(chosen)}", Ack)
    if session.json:
        session.screen.object("invite-revoke", {"invite_id": chosen, "state": "revoked"})
    else:
        session.screen.line(f"invite {short_id(chosen)} revoked")
