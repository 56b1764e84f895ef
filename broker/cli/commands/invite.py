"""`certmesh invite`: single-use tickets, each bound to one host."""

import sys

import click

from broker.cli.api import segment
from broker.cli.choice import meant
from broker.cli.options import DURATION, Noun, pass_session
from broker.cli.public import public
from broker.cli.qr import draw
from broker.cli.session import Session
from broker.cli.shape import due_in, rfc3339, short_id
from broker.clock import wall_s
from broker.runtime.duration import Duration
from broker.wire.console_api import InviteBody, InviteCreated
from broker.wire.control import Ack
from broker.wire.enrollment import InvitesView

ID_LENGTH = 64
"""A whole id, which no host name without a dot is as long as: it needs no look at the newest ones,
so that an invite is never too old to be revoked."""


@click.group(cls=Noun)
def invite() -> None:
    """Make, list and revoke single-use tickets for a host."""


@invite.command()
@click.argument("host")
@click.option("--ttl", type=DURATION, help="How long it is good for (else the node's setting).")
@click.option("--san", multiple=True, metavar="NAME", help="Allow this extra name. Repeatable.")
@click.option("--rejoin", is_flag=True, help="Replace HOST if it is a member: its disk is lost.")
@click.option("--qr", is_flag=True, help="Draw it as a QR code too, on standard error.")
@pass_session
def create(  # noqa: PLR0913 (one option each)
    session: Session,
    *,
    host: str,
    ttl: Duration | None,
    san: tuple[str, ...],
    rejoin: bool,
    qr: bool,
) -> None:
    """Print an invite for HOST; its secret is shown only now."""
    if ttl is not None and not ttl.s:
        raise click.BadParameter("an invite has to be good for a while", param_hint="--ttl")
    wish = InviteBody(host=host, sans=san, ttl_s=ttl.s if ttl else 0, rejoin=rejoin)
    made = session.api().post("/v1/invites", InviteCreated, wish)
    if session.json:
        session.screen.object("invite-create", public(made))
        return
    session.screen.line(made.invite)
    if qr:
        draw(made.invite, sys.stderr)
    session.screen.note(f"for {made.host}, good until {rfc3339(made.expires_at)}, once")
    if rejoin:
        session.screen.note("whoever uses it replaces the member of that name")
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
        ("ID", "HOST", "STATE", "EXPIRES IN", "EXTRA NAMES", "REPLACES"),
        [
            (
                short_id(line.invite_id),
                line.host,
                line.state,
                due_in(line.expires_at, now) if line.state == "open" else "-",
                ", ".join(line.sans) or "-",
                "its member" if line.rejoin else "-",
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
    chosen = invite_id
    if len(invite_id) != ID_LENGTH or "." in invite_id:
        known = api.get("/v1/invites", InvitesView).invites
        opened = [(line.invite_id, line.host) for line in known if line.state == "open"]
        chosen = meant(invite_id, opened, "open invite")
    api.ask("DELETE", f"/v1/invites/{segment(chosen)}", Ack)
    if session.json:
        session.screen.object("invite-revoke", {"invite_id": chosen, "state": "revoked"})
    else:
        session.screen.line(f"invite {short_id(chosen)} revoked")
