"""`certmesh approval`: joins that wait for a person.

The four words are the point: they stand on both screens, and only the host whose key is being
certified can show the same ones.
"""

import click

from broker.cli.api import Api, segment
from broker.cli.choice import meant
from broker.cli.options import Noun, pass_session
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import ago, due_in, grouped, short_id
from broker.clock import wall_s
from broker.wire.approval import Approval, ApprovalsView, ApprovalView
from broker.wire.console_api import ReasonBody


@click.group(cls=Noun)
def approval() -> None:
    """Decide about joins that wait for a person."""


@approval.command("list")
@click.option("--all", "every", is_flag=True, help="Decided ones too.")
@pass_session
def list_(session: Session, *, every: bool) -> None:
    """List what waits, oldest first."""
    path = "/v1/approvals" if every else "/v1/approvals?state=pending"
    view = session.api().get(path, ApprovalsView)
    if session.json:
        session.screen.object("approval-list", public(view))
    elif not view.approvals:
        session.screen.line("nothing waits")
    else:
        now = wall_s()
        session.screen.table(
            ("ID", "HOST", "WORDS", "FROM", "STATE", "AGE"),
            [
                (
                    short_id(line.approval_id),
                    line.host,
                    "  ".join(line.words),
                    line.source,
                    line.state,
                    ago(line.requested_at, now),
                )
                for line in view.approvals
            ],
        )
        for line in view.approvals:
            if line.note and line.state == "pending":
                session.screen.note(f"{line.host}: {line.note}")


@approval.command()
@click.argument("approval_id", metavar="ID")
@pass_session
def show(session: Session, *, approval_id: str) -> None:
    """Show one request with its words. ID may be its beginning, or the host."""
    api = session.api()
    chosen = _chosen(api, approval_id, "")
    view = api.get(f"/v1/approvals/{segment(chosen)}", ApprovalView)
    if session.json:
        session.screen.object("approval-show", public(view))
    else:
        session.screen.pairs(_facts(view.approval, wall_s()))


def _facts(wanted: Approval, now: int) -> list[tuple[str, str]]:
    decision = f"{wanted.state} by {wanted.operator}" if wanted.operator else wanted.state
    return [
        ("host", wanted.host),
        ("words", "  ".join(wanted.words)),
        ("names", ", ".join(wanted.sans) or "-"),
        ("from", f"{wanted.source} ({wanted.method})"),
        ("key", grouped(wanted.key_fingerprint)),
        ("asked", ago(wanted.requested_at, now)),
        ("expires in", due_in(wanted.expires_at, now) if wanted.state == "pending" else "-"),
        ("state", f"{decision}: {wanted.reason}" if wanted.reason else decision),
        ("note", wanted.note or "-"),
    ]


@approval.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", default="", help="Kept in the audit trail.")
@pass_session
def approve(session: Session, *, approval_id: str, reason: str) -> None:
    """Say yes. Compare the words first. ID may be its beginning, or the host."""
    _decide(session, approval_id, "approve", reason)


@approval.command()
@click.argument("approval_id", metavar="ID")
@click.option("--reason", default="", help="Kept in the audit trail and told to the host.")
@pass_session
def deny(session: Session, *, approval_id: str, reason: str) -> None:
    """Say no."""
    _decide(session, approval_id, "deny", reason)


def _decide(session: Session, approval_id: str, verdict: str, reason: str) -> None:
    api = session.api()
    chosen = _chosen(api, approval_id, "?state=pending")
    path = f"/v1/approvals/{segment(chosen)}/{verdict}"
    view = api.post(path, ApprovalView, ReasonBody(reason=reason))
    if session.json:
        session.screen.object(f"approval-{verdict}", public(view))
    else:
        session.screen.line(f"{view.approval.host}: {view.approval.state}")


def _chosen(api: Api, word: str, query: str) -> str:
    known = api.get(f"/v1/approvals{query}", ApprovalsView).approvals
    candidates = [(line.approval_id, line.host) for line in known]
    return meant(word, candidates, "pending request" if query else "request")
