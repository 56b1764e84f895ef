"""`certmesh enrollment`: the door for hosts that have a TOTP code."""

import click

from broker.cli.options import Noun, pass_session
from broker.cli.public import public
from broker.cli.session import Session
from broker.wire.console_api import EnrollmentBody
from broker.wire.enrollment import EnrollmentView

PATH = "/v1/enrollment"


@click.group(cls=Noun)
def enrollment() -> None:
    """Open or close the door for TOTP codes.

    Invites work either way: each is a permission of its own.
    """


@enrollment.command("open")
@pass_session
def open_(session: Session) -> None:
    """Let hosts with a TOTP code ask to join."""
    _set(session, is_open=True)


@enrollment.command()
@pass_session
def close(session: Session) -> None:
    """Take no more TOTP codes."""
    _set(session, is_open=False)


@enrollment.command()
@pass_session
def show(session: Session) -> None:
    """Show whether the door is open and whether a person must agree."""
    _say(session, session.api().get(PATH, EnrollmentView))


def _set(session: Session, *, is_open: bool) -> None:
    _say(session, session.api().ask("PUT", PATH, EnrollmentView, EnrollmentBody(open=is_open)))


def _say(session: Session, view: EnrollmentView) -> None:
    if session.json:
        session.screen.object("enrollment", public(view))
        return
    who = "a person approves each join" if view.approval else "a TOTP code is enough"
    session.screen.line(f"enrollment {'open' if view.open else 'closed'}; {who}")
