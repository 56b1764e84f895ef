"""`certmesh notify`: who hears of trouble, what they were told, and whether it gets through."""

import click

from broker.cli.options import Noun, pass_session
from broker.cli.patience import until
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import ago
from broker.clock import wall_s
from broker.errors import NotFoundError
from broker.runtime.exits import Exit
from broker.wire.notice import NoticeLine, NoticesView

BESIDE_MS = 5_000
"""Beyond the patience with a target: the way through broker and worker."""
UNTRIED = "was not tried yet; is the process notify running?"


@click.group(cls=Noun)
def notify() -> None:
    """Who hears of trouble, what they were told, and whether it gets through."""


@notify.command("list")
@click.option(
    "--limit",
    type=click.IntRange(1, 100),
    default=20,
    show_default=True,
    help="At most this many notices.",
)
@pass_session
def list_(session: Session, *, limit: int) -> None:
    """List the newest notices of this node: who took them, who did not, and why."""
    view = session.api().get(f"/v1/notices?limit={limit}", NoticesView)
    if session.json:
        session.screen.object("notify-list", public(view))
        return
    now = wall_s()
    session.screen.table(
        ("WHEN", "EVENT", "STATE", "WHAT", "WAITS FOR"),
        [
            (
                ago(line.notice.at, now),
                line.notice.event,
                line.state,
                line.notice.summary,
                line.last_error or ", ".join(line.waiting) or "-",
            )
            for line in view.notices
        ],
    )
    if not view.targets:
        session.screen.note("[notify] names nobody: no webhook, no ntfy, no smtp")


@notify.command()
@pass_session
def test(session: Session) -> int:
    """Send a notice that says nothing happened, and wait for it. Exit 1 when a target fails."""
    patience_ms = session.patience_ms(session.settings.notify.timeout.ms + BESIDE_MS)
    try:
        posted = session.api().post("/v1/notices/test", NoticesView)
    except NotFoundError as error:
        raise click.UsageError(f"{error.detail}: {error.hint}") from None
    notice_id = posted.notices[0].notice.notice_id
    found = posted.notices[0]

    def look() -> NoticeLine | None:
        nonlocal found
        view = session.api().get("/v1/notices?limit=100", NoticesView)
        found = next((n for n in view.notices if n.notice.notice_id == notice_id), found)
        return found if found.state != "waiting" or all(found.errors) else None

    until(look, patience_ms)
    reasons = dict(zip(found.waiting, found.errors, strict=True))
    why = {name: reasons[name] or UNTRIED for name in reasons}
    if session.json:
        targets = [
            {"target": name, "taken": name not in why, "detail": why.get(name, "")}
            for name in posted.targets
        ]
        session.screen.object("notify-test", {"notice_id": notice_id, "targets": targets})
    else:
        rows = [(n, f"fail: {why[n]}" if n in why else "taken") for n in posted.targets]
        session.screen.table(("TARGET", "RESULT"), rows)
    return Exit.FAILED if why else Exit.OK
