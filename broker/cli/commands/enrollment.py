"""`certmesh enrollment`: the door for hosts that have a TOTP code."""

import sys

import click

from broker.cli.api import Api
from broker.cli.options import Noun, pass_session
from broker.cli.prompt import read_secret
from broker.cli.public import public
from broker.cli.qr import draw
from broker.cli.session import Session
from broker.cli.shape import span
from broker.errors import BadCredentialError
from broker.wire.console_api import CodeBody, EnrollmentBody
from broker.wire.enrollment import EnrollmentView, TOTPRotationView

PATH = "/v1/enrollment"
ROTATE, CONFIRM = f"{PATH}/totp/rotate", f"{PATH}/totp/confirm"
TRIES = 3
CODE_LENGTH_MIN, CODE_LENGTH_MAX = 6, 16


@click.group(cls=Noun)
def enrollment() -> None:
    """Open or close the door for TOTP codes, or change the secret behind them.

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


@enrollment.command("rotate-totp")
@click.option("--start", is_flag=True, help="Only draw and show the new secret.")
@click.option("--code-file", metavar="PATH|-", help="Only prove it, with a code from there.")
@pass_session
def rotate_totp(session: Session, *, start: bool, code_file: str | None) -> None:
    """Replace the secret behind the codes; the old one counts until the new one is proven.

    Shows the new secret once, then asks for a code of it. Without a terminal these are two steps,
    --start and --code-file, at most ten minutes apart.
    """
    if start and code_file:
        raise click.UsageError("--start and --code-file are two steps: give one of them")
    if code_file:
        _say(session, _prove(session.api(), read_secret(code_file)), what="enrollment-rotate-totp")
        return
    if not start and (session.json or not session.interactive):
        raise click.UsageError("there is nobody to type a code: use --start, then --code-file -")
    api = session.api()
    _show_secret(session, api.post(ROTATE, TOTPRotationView))
    if not start:
        _say(session, _ask_until_proven(session, api), what="enrollment-rotate-totp")


def _show_secret(session: Session, view: TOTPRotationView) -> None:
    if session.json:
        session.screen.object("enrollment-rotate-totp", public(view))
        return
    session.screen.line(f"new TOTP key  {view.totp_key}")
    session.screen.line(f"              {view.totp_uri}")
    if sys.stdout.isatty():
        draw(view.totp_uri, sys.stdout)
    session.screen.note(
        "the old key counts until a code of this one is given, "
        f"within {span(view.ttl_s)}: {session.command('enrollment rotate-totp --code-file -')}"
    )


def _ask_until_proven(session: Session, api: Api) -> EnrollmentView:
    """Return what the broker says to a code of the new secret; a slip of the finger is forgiven.

    Raises:
        BadCredentialError: Three codes were wrong; the old secret is in force.
    """
    for _ in range(TRIES - 1):
        try:
            return _prove(api, _ask_code())
        except BadCredentialError as refusal:
            session.screen.warn(f"{refusal.detail}. {refusal.hint}")
    return _prove(api, _ask_code())


def _ask_code() -> str:
    return str(click.prompt("A code of the new key", err=True))


def _prove(api: Api, code: str) -> EnrollmentView:
    typed = code.replace(" ", "")
    if not CODE_LENGTH_MIN <= len(typed) <= CODE_LENGTH_MAX:
        raise BadCredentialError("that is no code: it has six digits", hint="type the newest code")
    return api.post(CONFIRM, EnrollmentView, CodeBody(code=typed))


def _set(session: Session, *, is_open: bool) -> None:
    _say(session, session.api().ask("PUT", PATH, EnrollmentView, EnrollmentBody(open=is_open)))


def _say(session: Session, view: EnrollmentView, *, what: str = "enrollment") -> None:
    if session.json:
        session.screen.object(what, public(view))
        return
    if what != "enrollment":
        session.screen.line("the new TOTP key is in force; codes of the old one are refused")
    who = "a person approves each join" if view.approval else "a TOTP code is enough"
    session.screen.line(f"enrollment {'open' if view.open else 'closed'}; {who}")
