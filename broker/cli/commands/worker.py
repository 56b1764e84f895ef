"""`certmesh worker`: renewal workers on other machines, each let in by a person on the CA."""

import click

from broker.cli.api import segment
from broker.cli.options import Noun, pass_session
from broker.cli.prompt import ask_yes
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import rfc3339
from broker.runtime.exits import Exit
from broker.wire.node import NodeView
from broker.wire.remote import (
    EnrollWorkerBody,
    RemoteWorkersView,
    RemoteWorkerView,
    RevokeWorkerBody,
)

KEY_SHOWN = 16
_DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done.")


@click.group(cls=Noun)
def worker() -> None:
    """Let renewal workers on other machines work for this CA."""


@worker.command()
@click.argument("host")
@_DRY_RUN
@pass_session
def enroll(session: Session, *, host: str, dry_run: bool) -> int:
    """Let the machine of the member HOST renew members for this CA.

    Run it on the primary. HOST starts workers with `[pool] remote_renewal` in its settings; they
    make a key there, which this grant is for. An earlier grant of HOST ends.
    """
    question = f"Let the renewal workers of {host} work for this CA?"
    if not dry_run and not ask_yes(session, question):
        session.screen.note("nothing was changed")
        return Exit.FAILED
    api = session.api()
    body = EnrollWorkerBody(host=host, dry_run=dry_run)
    view = api.post("/v1/remote-workers", RemoteWorkerView, body)
    listen = api.get("/v1/remote-workers", RemoteWorkersView).listen
    if session.json:
        told = public(view) | {"listen": listen, "dry_run": dry_run}
        session.screen.object("worker-enroll", told)
        return Exit.OK
    verb = "would be let in" if dry_run else "is let in"
    session.screen.line(f"{view.host} {verb} as soon as its workers tell their key")
    session.screen.note(
        f"on {view.host}: remote_renewal = 1 (or more) under [pool], then certmesh up"
    )
    if not listen:
        session.screen.note(
            "here: set workers under [listen], such as 0.0.0.0:7645, then certmesh down and up; "
            "nobody listens for them yet"
        )
    if view.host == api.get("/v1/node", NodeView).host:
        session.screen.note(f"{view.host} leads now: its remote workers rest until another does")
    return Exit.OK


@worker.command()
@click.argument("host")
@_DRY_RUN
@pass_session
def revoke(session: Session, *, host: str, dry_run: bool) -> int:
    """End what the machine of HOST was granted; it stays a member.

    Its workers are refused at their next request, and what they were doing goes to others.
    """
    if not dry_run and not ask_yes(session, f"Take the renewal work from {host}?"):
        session.screen.note("nothing was changed")
        return Exit.FAILED
    path = f"/v1/remote-workers/{segment(host)}/revoke"
    view = session.api().post(path, RemoteWorkerView, RevokeWorkerBody(dry_run=dry_run))
    if session.json:
        session.screen.object("worker-revoke", public(view) | {"dry_run": dry_run})
        return Exit.OK
    verb = "would be" if dry_run else "is"
    session.screen.line(f"the grant of {view.host} {verb} over; its key is worth nothing any more")
    return Exit.OK


@worker.command("list")
@pass_session
def list_(session: Session) -> None:
    """List the grants, newest first, and what became of them."""
    view = session.api().get("/v1/remote-workers", RemoteWorkersView)
    if session.json:
        session.screen.object("worker-list", public(view))
        return
    session.screen.table(
        ("HOST", "STATE", "CONNECTED", "RENEWALS", "KEY", "SINCE", "BY"),
        [
            (
                line.host,
                line.state,
                str(line.connected) if line.state == "bound" else "-",
                str(line.renewals),
                line.public_key[:KEY_SHOWN] or "-",
                rfc3339(line.enrolled_at),
                line.enrolled_by,
            )
            for line in view.workers
        ],
    )
    where = f"remote workers reach this broker at {view.listen}"
    session.screen.note(where if view.listen else "this broker listens for no remote workers")
