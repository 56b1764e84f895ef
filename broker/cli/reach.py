"""How far a revocation has come: who refuses the member, who does not yet, and waiting for it."""

from broker.cli.api import segment
from broker.cli.patience import until
from broker.cli.public import public
from broker.cli.session import Session
from broker.runtime.exits import Exit
from broker.wire.roster import RevocationAnswer

HOSTS_SHOWN = 10


def wait_for_reach(session: Session, answer: RevocationAnswer, wait_ms: int) -> RevocationAnswer:
    """Return how far it has come when every node heard lately enforces it, or patience ends."""
    if not wait_ms or not answer.lacking:
        return answer
    newest = [answer]

    def look() -> RevocationAnswer | None:
        newest[0] = session.api().get(f"/v1/members/{segment(answer.host)}/reach", RevocationAnswer)
        return None if newest[0].lacking else newest[0]

    session.screen.note(f"waiting for {_named(answer.lacking)}")
    return until(look, wait_ms) or newest[0]


def say_reach(session: Session, answer: RevocationAnswer) -> None:
    """Print who refuses the member already, and what would survive the loss of this node."""
    screen = session.screen
    screen.line(f"refused already by {answer.enforced_by} of {answer.members} nodes")
    if answer.lacking:
        screen.line(f"not yet by {_named(answer.lacking)}: they will know within seconds")
    if answer.away:
        screen.line(f"not heard lately: {_named(answer.away)}; they learn it before anything else")
    if answer.standbys:
        count = "1 standby" if answer.standbys == 1 else f"{answer.standbys} standbys"
        screen.line(f"durable on {answer.standbys_durable} of {count}")


def show_reach(session: Session, command: str, answer: RevocationAnswer) -> int:
    """Print how far a revocation has come; 8 while a node that was heard does not enforce it."""
    if session.json:
        session.screen.object(command, public(answer) | {"complete": not answer.lacking})
    else:
        say_reach(session, answer)
    return Exit.WAITING if answer.lacking else Exit.OK


def _named(hosts: tuple[str, ...]) -> str:
    more = len(hosts) - HOSTS_SHOWN
    return ", ".join(hosts[:HOSTS_SHOWN]) + (f" and {more} more" if more > 0 else "")
