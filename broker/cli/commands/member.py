"""`certmesh member`: the roster."""

import click

from broker.cli.api import segment
from broker.cli.commands.status import draw_members
from broker.cli.options import Noun, pass_session
from broker.cli.prompt import ask_yes
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import ago, left, rfc3339, short_serial
from broker.clock import wall_s
from broker.runtime.exits import Exit
from broker.wire.console_api import RevokeBody
from broker.wire.roster import MembersView, MemberView, RevocationAnswer


@click.group(cls=Noun)
def member() -> None:
    """Show or revoke members."""


@member.command("list")
@click.option("--after", default="", metavar="HOST", help="Start after this host.")
@click.option("--limit", default=500, show_default=True, help="At most this many.")
@pass_session
def list_(session: Session, *, after: str, limit: int) -> None:
    """List members in the order of their names."""
    path = f"/v1/members?after={segment(after)}&limit={limit}"
    view = session.api().get(path, MembersView)
    if session.json:
        session.screen.object("member-list", public(view))
        return
    draw_members(session.screen, view.members, wall_s())
    if view.next_after:
        session.screen.note(f"{view.total} in all; go on with --after {view.next_after}")


@member.command()
@click.argument("host")
@pass_session
def show(session: Session, *, host: str) -> None:
    """Show one member and its certificates."""
    view = session.api().get(f"/v1/members/{segment(host)}", MemberView)
    if session.json:
        session.screen.object("member-show", public(view))
        return
    now, line = wall_s(), view.member
    session.screen.pairs(
        [
            ("host", line.host),
            ("member", line.member_id),
            ("role", f"{line.role}, {line.state}"),
            ("names", ", ".join(line.sans) or "-"),
            ("address", line.address or "-"),
            ("joined", "-" if line.joined_at is None else rfc3339(line.joined_at)),
            ("last seen", ago(line.last_seen_at, now)),
            ("serves", f"{line.served} {short_serial(line.served_serial)}"),
            ("trouble", line.last_error or "none"),
        ]
    )
    session.screen.line()
    session.screen.table(
        ("SERIAL", "STATE", "UNTIL", "LEFT"),
        [
            (
                held.serial,
                held.state,
                rfc3339(held.not_after),
                left(held.not_after, now) if held.state == "active" else "-",
            )
            for held in view.certificates
        ],
    )


@member.command()
@click.argument("host")
@click.option("--reason", default="", help="Kept in the audit trail.")
@click.option("--dry-run", is_flag=True, help="Say what would be revoked.")
@pass_session
def revoke(session: Session, *, host: str, reason: str, dry_run: bool) -> int:
    """Revoke a member: its identity and all its certificates, for ever."""
    if not dry_run and not ask_yes(session, f"Revoke {host} and all its certificates for ever?"):
        session.screen.note("nothing was revoked")
        return Exit.FAILED
    path = f"/v1/members/{segment(host)}/revoke"
    body = RevokeBody(reason=reason, dry_run=dry_run)
    answer = session.api().post(path, RevocationAnswer, body)
    if session.json:
        session.screen.object("member-revoke", public(answer) | {"dry_run": dry_run})
        return Exit.OK
    what = f"{len(answer.serials)} certificate{'s' if len(answer.serials) != 1 else ''}"
    verb = "would be revoked" if dry_run else "revoked"
    session.screen.line(f"{answer.host} {verb}: {what} ({', '.join(answer.serials) or '-'})")
    if not dry_run:
        _say_reach(session, answer)
    return Exit.OK


def _say_reach(session: Session, answer: RevocationAnswer) -> None:
    """Print who refuses the member already, and what would survive the loss of this node."""
    session.screen.line(f"refused already by {answer.enforced_by} of {answer.members} nodes")
    if answer.standbys:
        count = "1 standby" if answer.standbys == 1 else f"{answer.standbys} standbys"
        session.screen.line(f"durable on {answer.standbys_durable} of {count}")
