"""`certmesh member`: the roster."""

import click

from broker.cli.api import segment
from broker.cli.options import DURATION, Noun, pass_session
from broker.cli.prompt import ask_yes
from broker.cli.public import public
from broker.cli.reach import say_reach, show_reach, wait_for_reach
from broker.cli.roster import Wish, draw_members, member_facts, members_wanted
from broker.cli.session import Session
from broker.cli.shape import left, rfc3339
from broker.clock import wall_s
from broker.runtime.duration import Duration
from broker.runtime.exits import Exit
from broker.wire.console_api import RenameBody, RevokeBody
from broker.wire.control import Ack
from broker.wire.roster import MemberView, RevocationAnswer

_WAIT = click.option(
    "--wait",
    type=DURATION,
    default=None,
    metavar="DUR",
    help="Wait until every node that was heard lately enforces it.",
)


@click.group(cls=Noun)
def member() -> None:
    """Show, revoke, reinstate or rename members."""


@member.command("list")
@click.option("--after", default="", metavar="HOST", help="Start after this host.")
@click.option("--limit", default=500, show_default=True, help="At most this many.")
@click.option("--sort", type=click.Choice(["host", "expiry"]), default="host", show_default=True)
@click.option("--expiring", type=DURATION, metavar="DUR", help="Only what ends within DUR.")
@click.option("--state", default="", metavar="WORD", help="Only up, away, stale, failed ...")
@click.option("--role", default="", metavar="ROLE", help="Only primary, standby or member.")
@pass_session
def list_(  # noqa: PLR0913 (one for each option)
    session: Session,
    *,
    after: str,
    limit: int,
    sort: str,
    expiring: Duration | None,
    state: str,
    role: str,
) -> None:
    """List members in the order of their names, or of when their certificates end.

    What counts is the end of the certificate that a host really serves.
    """
    within_s = expiring.s if expiring is not None else None
    order = "expiry" if expiring is not None else sort
    wish = Wish(after, max(1, limit), order, within_s, state.lower(), role.lower())
    view = members_wanted(session.api(), wish)
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
    now = wall_s()
    session.screen.pairs(member_facts(view.member, now))
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
@_WAIT
@pass_session
def revoke(
    session: Session, *, host: str, reason: str, dry_run: bool, wait: Duration | None
) -> int:
    """Revoke a member: its identity and all its certificates, for ever.

    Exit: 0 revoked; with --wait 8 while a node that was heard does not enforce it yet.
    """
    if not dry_run and not ask_yes(session, f"Revoke {host} and all its certificates for ever?"):
        session.screen.note("nothing was revoked")
        return Exit.FAILED
    path = f"/v1/members/{segment(host)}/revoke"
    body = RevokeBody(reason=reason, dry_run=dry_run)
    answer = session.api().post(path, RevocationAnswer, body)
    if wait is not None and not dry_run:
        answer = wait_for_reach(session, answer, wait.ms)
    status = Exit.WAITING if wait is not None and answer.lacking and not dry_run else Exit.OK
    if session.json:
        session.screen.object("member-revoke", public(answer) | {"dry_run": dry_run})
        return status
    what = f"{len(answer.serials)} certificate{'s' if len(answer.serials) != 1 else ''}"
    verb = "would be revoked" if dry_run else "revoked"
    session.screen.line(f"{answer.host} {verb}: {what} ({', '.join(answer.serials) or '-'})")
    if not dry_run:
        say_reach(session, answer)
    return status


@member.command()
@click.argument("host")
@_WAIT
@pass_session
def reach(session: Session, *, host: str, wait: Duration | None) -> int:
    """Show who enforces the revocation of a member by now.

    Exit: 0 every node heard lately does, 8 not yet.
    """
    answer = session.api().get(f"/v1/members/{segment(host)}/reach", RevocationAnswer)
    answer = wait_for_reach(session, answer, wait.ms if wait is not None else 0)
    return show_reach(session, "member-reach", answer)


@member.command()
@click.argument("host")
@pass_session
def reinstate(session: Session, *, host: str) -> int:
    """Free the name of a revoked member, so that it may join again as somebody new.

    The revoked identity and its certificates stay out for ever.
    """
    if not ask_yes(session, f"Let {host} join again like any other host?"):
        session.screen.note("nothing was changed")
        return Exit.FAILED
    session.api().post(f"/v1/members/{segment(host)}/reinstate", Ack)
    if session.json:
        session.screen.object("member-reinstate", {"host": host, "state": "free"})
    else:
        session.screen.line(f"the name {host} is free; what was revoked stays revoked")
    return Exit.OK


@member.command()
@click.argument("host", metavar="OLD")
@click.argument("new_host", metavar="NEW")
@click.option("--dry-run", is_flag=True, help="Say what its names would be.")
@pass_session
def rename(session: Session, *, host: str, new_host: str, dry_run: bool) -> int:
    """Give a member another name; it stays who it is and renews by itself."""
    question = f"Rename {host} to {new_host}? Whoever calls it has to use the new name."
    if not dry_run and not ask_yes(session, question):
        session.screen.note("nothing was changed")
        return Exit.FAILED
    path = f"/v1/members/{segment(host)}/rename"
    view = session.api().post(path, MemberView, RenameBody(new_host=new_host, dry_run=dry_run))
    if session.json:
        named = {"before": host, "host": view.member.host, "names": list(view.member.sans)}
        session.screen.object("member-rename", named | {"dry_run": dry_run})
        return Exit.OK
    verb = "would be" if dry_run else "is now"
    session.screen.line(f"{host} {verb} {view.member.host}: {', '.join(view.member.sans)}")
    if not dry_run:
        session.screen.note("it takes the name with its next heartbeat, then renews")
    return Exit.OK
