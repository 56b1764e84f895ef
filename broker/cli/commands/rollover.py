"""`certmesh ca rollover`: replace the CA with overlap.

Exit 3 when the status names somebody who holds it back; 7 for a wrong passphrase; 9 when the step
is not possible now.
"""

import click

from broker.cli.options import Noun, pass_session
from broker.cli.prompt import ask_secret, ask_yes, read_secret
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import day, grouped
from broker.runtime.exits import Exit
from broker.wire.rollover import FinishRolloverBody, RolloverBody, RolloverView

PLACE = "/v1/ca/rollover"
START_MS = 90_000
"""Longer than the console waits: a slow board derives keys for a while."""
STEP_MS = 40_000
NAMES_SHOWN = 20

WORDS = {
    "none": "no rollover is under way",
    "trusting": "the next root is announced, the present CA signs",
    "switched": "the next CA signs, the old root is still trusted",
}


@click.group(cls=Noun)
def rollover() -> None:
    """Replace the CA with overlap: trusted before it signs, and after it stopped."""


@rollover.command()
@click.option("--passphrase-file", metavar="PATH|-", help="Read the passphrase from there.")
@click.option("--name", "names", multiple=True, help="Permit this domain too, besides the policy.")
@click.option("--network", "networks", multiple=True, help="Permit this network too.")
@pass_session
def start(
    session: Session,
    *,
    passphrase_file: str | None,
    names: tuple[str, ...],
    networks: tuple[str, ...],
) -> int:
    """Make the next CA and announce its root. Nothing else changes yet.

    A policy cannot go beyond what the CA is constrained to: widen the CA here, finish, then
    change the policy.
    """
    secret = (
        read_secret(passphrase_file)
        if passphrase_file
        else ask_secret(session, "CA passphrase", "--passphrase-file")
    )
    api = session.api(START_MS)
    body = RolloverBody(passphrase=secret, names=names, networks=networks)
    return _say(session, api.post(PLACE, RolloverView, body))


@rollover.command()
@pass_session
def status(session: Session) -> int:
    """Show how far it is, and who holds the next step back (exit 3)."""
    view = session.api(STEP_MS).get(PLACE, RolloverView)
    _say(session, view)
    return Exit.ATTENTION if view.lacking or view.standbys_lacking else Exit.OK


@rollover.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would be.")
@pass_session
def finish(session: Session, *, dry_run: bool) -> int:
    """Let the next CA sign. All members renew; the old root is dropped when nobody needs it."""
    if not dry_run and not ask_yes(
        session, "Let the next CA sign? All members renew now, and open invites are revoked."
    ):
        return Exit.FAILED
    body = FinishRolloverBody(dry_run=dry_run)
    return _say(session, session.api(STEP_MS).post(f"{PLACE}/finish", RolloverView, body))


@rollover.command()
@pass_session
def abort(session: Session) -> int:
    """Forget the next CA and destroy its keys; possible until it signs."""
    if not ask_yes(session, "Forget the next CA and destroy its keys?"):
        return Exit.FAILED
    return _say(session, session.api(STEP_MS).ask("DELETE", PLACE, RolloverView))


def _say(session: Session, view: RolloverView) -> int:
    if session.json:
        session.screen.object("ca-rollover", public(view))
    else:
        session.screen.pairs(_facts(view))
    return Exit.OK


def _facts(view: RolloverView) -> list[tuple[str, str]]:
    facts = [("phase", f"{view.phase}: {WORDS[view.phase]}"), ("sha256", grouped(view.pin))]
    if view.phase == "none":
        return facts
    if view.phase == "trusting":
        facts.append(("next", grouped(view.next_pin)))
    if view.started_at is not None:
        facts.append(("started", day(view.started_at)))
    ready = "trust the next root" if view.phase == "trusting" else "have left the old CA"
    facts.append(("members", f"{view.trusting} of {view.members} {ready}"))
    for label, hosts in (
        ("waiting for", view.lacking),
        ("away", view.away),
        ("standbys", view.standbys_lacking),
    ):
        if hosts:
            facts.append((label, _names(hosts)))
    return [*facts, ("", view.detail)] if view.detail else facts


def _names(hosts: tuple[str, ...]) -> str:
    more = len(hosts) - NAMES_SHOWN
    return ", ".join(hosts[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
