"""`certmesh review`: what the merge decided after a partition, for a person to look at.

Nothing waits for the review: the rules have decided, and the loser's side is listed here.
"""

import click

from broker.cli.api import segment
from broker.cli.choice import meant
from broker.cli.options import Noun, pass_session
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import ago, short_id
from broker.clock import wall_s
from broker.wire.control import Ack
from broker.wire.standby import ReviewsView

PATH = "/v1/reviews"


@click.group(cls=Noun)
def review() -> None:
    """Conflicts that the merge decided, for a person to look at."""


@review.command("list")
@pass_session
def list_(session: Session) -> None:
    """List what nobody has looked at yet, oldest first."""
    view = session.api().get(PATH, ReviewsView)
    if session.json:
        session.screen.object("review-list", public(view))
        return
    if not view.reviews:
        session.screen.line("nothing to review")
        return
    now = wall_s()
    session.screen.table(
        ("ID", "KIND", "SUBJECT", "KEPT", "LOST", "ROW", "AGE"),
        [
            (
                short_id(line.review_id),
                line.kind,
                line.subject,
                line.kept,
                line.lost,
                str(line.sequence),
                ago(line.at, now),
            )
            for line in view.reviews
        ],
    )
    if view.total > len(view.reviews):
        session.screen.note(f"{view.total} in all; close these to see the others")


@review.command()
@click.argument("review_id", metavar="ID")
@pass_session
def close(session: Session, *, review_id: str) -> None:
    """Say that a person has looked at it. ID may be its beginning, or the subject."""
    api = session.api()
    known = [(line.review_id, line.subject) for line in api.get(PATH, ReviewsView).reviews]
    chosen = meant(review_id, known, "open review")
    api.post(f"{PATH}/{segment(chosen)}/close", Ack)
    if session.json:
        session.screen.object("review-close", {"review_id": chosen, "state": "closed"})
    else:
        session.screen.line(f"review {short_id(chosen)} closed")
