"""`certmesh audit`: what happened, and the proof that nobody rewrote it."""

import json
from pathlib import Path

import click

from broker.cli.options import Noun, pass_session
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import rfc3339
from broker.cli.trailfile import export_to, exported, read_export
from broker.runtime.exits import Exit
from broker.wire.audit import AuditLine, AuditVerdict, AuditView
from broker.wire.chain import TrailVerdict, check_trail

MOMENTS = frozenset({"not_before", "not_after", "renew_at", "expires_at"})
HEX_DIGITS = frozenset("0123456789abcdef")
ID_SHOWN = 13
TEXT_SHOWN = 40
EXPORT_PAGE = 500
VERIFY_MS = 120_000
"""A chain of a million rows takes many seconds."""


@click.group(cls=Noun)
def audit() -> None:
    """Read, verify and export the audit trail."""


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
@click.option(
    "--file",
    "export",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Check an export instead; nothing is asked of any node.",
)
@pass_session
def verify(session: Session, *, export: Path | None) -> int:
    """Recompute the hash chain from the first row, and compare it with what members remember.

    Exit: 1 when the chain does not hold or a member remembers another one.
    """
    if export is not None:
        return _verify_file(session, export)
    verdict = session.api(VERIFY_MS).get("/v1/audit/verify", AuditVerdict)
    holds, others = verdict.first_bad is None, verdict.contradicted_by
    if session.json:
        session.screen.object("audit-verify", public(verdict) | {"ok": holds and not others})
        return Exit.OK if holds and not others else Exit.FAILED
    if holds:
        session.screen.line(f"ok    {verdict.rows} rows, head {verdict.head_hash}")
    else:
        session.screen.line(f"fail  row {verdict.first_bad}: {verdict.detail}")
    if others:
        session.screen.line(f"fail  another journal is remembered by {', '.join(others)}")
        shown = session.command("audit show")
        session.screen.line(f"      rows were lost or exchanged: look for audit.broken in {shown}")
    elif verdict.witnesses:
        session.screen.line(f"ok    {verdict.witnesses} members vouch for it")
    return Exit.OK if holds and not others else Exit.FAILED


def _verify_file(session: Session, export: Path) -> int:
    verdict = check_trail(read_export(export))
    holds = verdict.first_bad is None and verdict.rows > 0
    if session.json:
        told = {name: getattr(verdict, name) for name in TrailVerdict.__slots__}
        session.screen.object("audit-verify", told | {"file": str(export), "ok": holds})
    elif holds:
        whole = "from the first row" if verdict.first == 1 else f"from row {verdict.first} on"
        session.screen.line(f"ok    {verdict.rows} rows {whole}, head {verdict.head_hash}")
    elif verdict.first_bad is None:
        session.screen.line("fail  there is no row in it")
    else:
        session.screen.line(f"fail  row {verdict.first_bad}: {verdict.detail}")
    return Exit.OK if holds else Exit.FAILED


@audit.command("export")
@click.option("--after", default=0, show_default=True, metavar="N", help="Rows after number N.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file, readable by you alone, instead of standard output.",
)
@pass_session
def export_(session: Session, *, after: int, output: Path | None) -> None:
    """Write the audit trail as one JSON object a line, with all that the hashes cover."""
    api, rows, last, until = session.api(VERIFY_MS), 0, max(0, after), 0
    with export_to(output) as out:
        while True:
            path = f"/v1/audit?after={last}&limit={EXPORT_PAGE}&full=1"
            view = api.get(path, AuditView)
            for line in view.rows:
                out.write(exported(line))
            rows, last = rows + len(view.rows), view.rows[-1].sequence if view.rows else last
            until = until or view.head_sequence  # what is written meanwhile is for the next one
            if not view.rows or last >= until:
                break
    if output is not None and session.json:
        session.screen.object("audit-export", {"file": str(output), "rows": rows, "last": last})
    elif output is not None:
        session.screen.line(f"{rows} rows, up to row {last}, in {output}")
