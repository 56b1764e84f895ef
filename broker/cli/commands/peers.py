"""`certmesh peers`: the other key holders as this node probes them, and what mDNS says.

A probe proves who answered; what mDNS says is only where to ask, and is shown apart.
"""

import click

from broker.cli.options import MeshCommand, pass_session
from broker.cli.public import public
from broker.cli.session import Session
from broker.wire.claims import Claim
from broker.wire.failover import Hint, PeersView, Sighting

SEEN_HEADINGS = ("HOST", "ADDRESS", "ROLE", "STATE", "TERM", "ROW")
HINT_HEADINGS = ("SERVICE", "ADDRESS", "ROLE", "TERM")


@click.command(cls=MeshCommand)
@pass_session
def peers(session: Session) -> None:
    """Show known and discovered nodes: who answers, and in which role."""
    view = session.api().get("/v1/peers", PeersView)
    screen = session.screen
    if session.json:
        screen.object("peers", public(view))
        return
    if view.sightings:
        screen.table(SEEN_HEADINGS, [_row(seen) for seen in view.sightings])
    else:
        screen.line("no other key holder was probed")
    if view.hints:
        screen.line()
        screen.line("seen by mDNS, not verified")
        screen.table(HINT_HEADINGS, [_hint_row(hint) for hint in view.hints])


def _row(seen: Sighting) -> tuple[str, ...]:
    claim = seen.claim
    if claim is None:
        return (seen.host, seen.address or "-", "-", seen.error or "no answer", "-", "-")
    role, state = claim.role, _state(claim)
    return (seen.host, seen.address, role, state, str(claim.term), str(claim.sequence))


def _state(claim: Claim) -> str:
    if claim.role == "primary":
        return "serving" if claim.serving else "pending"
    if claim.promotable:
        return "asks for the role" if claim.called else "ready"
    return claim.reason or "not promotable"


def _hint_row(hint: Hint) -> tuple[str, ...]:
    where = f"{', '.join(hint.addresses) or '-'}:{hint.port}"
    return (hint.instance, where, hint.role or "-", hint.term or "-")
