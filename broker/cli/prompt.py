"""Questions to a person, and secrets from files. Never a question without a terminal."""

import stat
import sys
from pathlib import Path

import click

from broker.cli.session import Session
from broker.cli.shape import clean

SECRET_BYTES_MAX = 1024
PRIVATE_TEXT_MAX = 16_384
FILE_PREFIX = "file:"
STDIN = "-"


def ask_yes(session: Session, question: str) -> bool:
    """Return the person's answer; `--yes` answers for them.

    Raises:
        click.UsageError: Nobody is there to be asked and `--yes` is missing.
    """
    if session.yes:
        return True
    require_person(session, "a confirmation is needed", "--yes")
    return click.confirm(clean(question), err=True)


def ask_text(session: Session, question: str, usual: str) -> str:
    """Return what the person types, `usual` when they type nothing or nobody is there."""
    if not session.interactive or session.yes:
        return usual
    return str(click.prompt(clean(question), default=usual, err=True))


def ask_secret(session: Session, question: str, flag: str) -> str:
    """Return a secret typed without echo.

    Raises:
        click.UsageError: Nobody is there to type; names `flag`.
    """
    require_person(session, f"{question} is needed", flag)
    return str(click.prompt(question, hide_input=True, err=True))


def require_person(session: Session, need: str, flag: str) -> None:
    """Raise unless a person sits at the terminal; `flag` is what a script gives instead."""
    if not session.interactive:
        raise click.UsageError(f"{need}, and there is no terminal to ask on: give {flag}")


def read_secret(source: str) -> str:
    """Return the first line of the file `source`, or of standard input for `-`.

    Raises:
        click.UsageError: Unreadable, empty, or longer than a secret can be.
    """
    secret = _first_line(source)
    if not secret:
        raise click.UsageError(f"{_named(source)} is empty")
    if len(secret.encode()) > SECRET_BYTES_MAX:
        raise click.UsageError(f"{_named(source)} is longer than {SECRET_BYTES_MAX} bytes")
    return secret


def read_private_text(source: str) -> str:
    """Return the whole text of a secret file of ours, or of standard input for `-`.

    Raises:
        click.UsageError: Unreadable, too long, or open to other users: whoever read it has it.
    """
    try:
        if source == STDIN:
            text = sys.stdin.read(PRIVATE_TEXT_MAX + 1)
        else:
            path = Path(source.removeprefix(FILE_PREFIX)).expanduser()
            if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
                raise click.UsageError(
                    f"{_named(source)} is open to other users and was not read: chmod 600 it"
                )
            with path.open(encoding="utf-8") as file:
                text = file.read(PRIVATE_TEXT_MAX + 1)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise click.UsageError(f"cannot read {_named(source)}: {reason}") from None
    if len(text) > PRIVATE_TEXT_MAX:
        raise click.UsageError(f"{_named(source)} is longer than {PRIVATE_TEXT_MAX} characters")
    return text


def _first_line(source: str) -> str:
    try:
        if source == STDIN:
            return sys.stdin.readline().rstrip("\r\n")
        path = Path(source.removeprefix(FILE_PREFIX)).expanduser()
        with path.open(encoding="utf-8") as file:
            return file.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise click.UsageError(f"cannot read {_named(source)}: {reason}") from None


def _named(source: str) -> str:
    return "standard input" if source == STDIN else source
