"""`certmesh audit`: what happened, and the proof that nobody rewrote it."""

import json

import click

from broker.cli.options import Noun, pass_session
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import rfc3339
from broker.runtime.exits import Exit
from broker.wire.audit import AuditLine, AuditVerdict, AuditView

MOMENTS = frozenset({"not_before", "not_after", "renew_at", "expires_at"})
HEX_DIGITS = frozenset("0123456789abcdef")
ID_SHOWN = 13
TEXT_SHOWN = 40
VERIFY_MS = 120_000
"""A chain of a million rows takes many seconds."""


@click.group(cls=Noun)
def audit() -> None:
    """Read and verify the audit trail."""


@audit.command()
@click.option("--after", type=int, default=None, metavar="N", help="Rows after number N.")
@click.option("--limit", default=50, show_default=True, help="At most this many rows.")
@pass_session
def show(session: Session, *, after: int | None, limit: int) -> None:
    """Show rows of the audit trail: the newest, or those after a number."""
    start = -1 if after is None else after
    view = session.api().get(f"/v1/audit?after={start}&limit={limit}", AuditView)
    if session.json:
        session.screen.object("audit-show", public(view))
        return
    session.screen.table(
        ("ROW", "AT", "TERM", "EVENT", "BY", "WHAT"), [_row(line) for line in view.rows]
    )


def _row(line: AuditLine) -> tuple[str, ...]:
    told = ((name, _short(name, value)) for name, value in line.fields.items())
    what = "  ".join(f"{name}={text}" for name, text in told if text)
    at = rfc3339(line.at)
    return (str(line.sequence), at, str(line.term), line.event, line.actor, what)


def _short(name: str, value: object) -> str:
    """Return a value as short as it still means something; `--json` has all of it."""
    if isinstance(value, int) and name in MOMENTS:
        return rfc3339(value)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    limit = ID_SHOWN if not set(text) - HEX_DIGITS else TEXT_SHOWN
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


@audit.command()
@pass_session
def verify(session: Session) -> int:
    """Recompute the hash chain from the first row. Exit 1 when it does not hold."""
    verdict = session.api(VERIFY_MS).get("/v1/audit/verify", AuditVerdict)
    holds = verdict.first_bad is None
    if session.json:
        session.screen.object("audit-verify", public(verdict) | {"ok": holds})
    elif holds:
        session.screen.line(f"ok    {verdict.rows} rows, head {verdict.head_hash}")
    else:
        session.screen.line(f"fail  row {verdict.first_bad}: {verdict.detail}")
    return Exit.OK if holds else Exit.FAILED
