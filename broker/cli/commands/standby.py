"""`certmesh standby`: who takes over when the primary is gone, and taking over on purpose.

Exit 9 when this node is not the primary, when somebody else holds what was asked for, or when a
takeover is withheld; 5 when the CA key here is locked; 8 when waiting ended before it happened.
"""

from typing import Any

import click

from broker.cli.api import Api, segment
from broker.cli.options import DURATION, Noun, pass_session
from broker.cli.patience import until
from broker.cli.prompt import ask_yes
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.succession import HEADINGS, concerns, condition, rows, standbys
from broker.clock import boottime_ms, wall_s
from broker.errors import ConflictError, MeshError
from broker.runtime.duration import Duration
from broker.runtime.exits import Exit
from broker.wire.console_api import PromoteBody, StepDownBody
from broker.wire.control import Ack
from broker.wire.node import NodeView
from broker.wire.standby import PromotionAnswer, StandbyLine, StandbysView, StepDownAnswer

LIST = "/v1/standbys"
PROMOTE = "/v1/standby/promote"
STEP_DOWN = "/v1/standby/step-down"
SYNC = "/v1/standby/sync"
NODE = "/v1/node"
TURN_MS = 20_000
"""Longer than the console waits for the broker, so that its words arrive."""
PROMOTE_WAIT = Duration(60_000)
"""A silent primary is replaced after a few ticks, a living one hands over in seconds."""
STEP_DOWN_WAIT = Duration(15_000)


@click.group(cls=Noun)
def standby() -> None:
    """Hot standbys: who takes over, and taking over on purpose."""


@standby.command("list")
@pass_session
def list_(session: Session) -> int:
    """Show the order of succession. Exit 3 when something in it needs attention."""
    view = session.api().get(LIST, StandbysView)
    confirm = session.command("standby promote")
    worries = list(concerns(view, session.settings.failover.tick.ms, confirm))
    if view.reviews:
        word = "conflict waits" if view.reviews == 1 else "conflicts wait"
        worries.append(f"{view.reviews} {word} for review: {session.command('review list')}")
    if session.json:
        session.screen.object("standby-list", public(view) | {"attention": worries})
    else:
        _draw(session, view, worries)
    return Exit.ATTENTION if worries else Exit.OK


def _draw(session: Session, view: StandbysView, worries: list[str]) -> None:
    screen = session.screen
    primary = view.primary or "unknown"
    headline = ("primary", f"{primary}   term {view.term}   mode {view.mode}")
    screen.pairs([headline, ("this node", f"{view.host}   {view.phase}")])
    screen.line()
    screen.table(HEADINGS, rows(view.lines, view.host, wall_s()))
    screen.line()
    for worry in worries:
        screen.line(f"warning   {worry}")
    if not standbys(view.lines):
        screen.line(f"no standby: {session.command('standby nominate HOST')}")
    elif not worries:
        screen.line("ok")


@standby.command()
@click.argument("host")
@click.option("--wait", type=DURATION, help="Wait this long until it is ready (else exit 8).")
@pass_session
def nominate(session: Session, *, host: str, wait: Duration | None) -> int:
    """Offer HOST the CA key, so that it can take over. Run it on the primary."""
    api, began = session.api(), boottime_ms()
    api.post(f"{LIST}/{segment(host)}", Ack)
    if wait is None:
        _say(session, "standby-nominate", f"{host} is nominated and fetches the key by itself")
        return Exit.OK
    watch = _Watch(session, api, host)
    ready = until(watch.look, wait.ms)
    took_s = (boottime_ms() - began) / 1000
    shown = {"host": host, "state": watch.state, "ready": ready is not None, "took_s": took_s}
    if ready is None:
        _say(session, "standby-nominate", f"{host} is not ready yet: {watch.said}", shown)
        return Exit.WAITING
    _say(session, "standby-nominate", f"{host} is ready, after {took_s:.1f} s", shown)
    return Exit.OK


class _Watch:
    """What a nominated node has come to, told whenever it changes."""

    def __init__(self, session: Session, api: Api, host: str) -> None:
        self._session, self._api, self._host = session, api, host
        self.state = ""
        self.said = "nothing heard of it"

    def look(self) -> StandbyLine | None:
        """Return its line once it is ready.

        Raises:
            ConflictError: The nomination has ended; waiting would not help.
        """
        lines = self._api.get(LIST, StandbysView).lines
        line = next((line for line in lines if line.host == self._host), None)
        if line is None:
            if self.state:
                raise ConflictError(f"{self._host} was {self.state}, and is no candidate any more")
            return None
        said = condition(line)
        if said != self.said:
            self.state, self.said = line.state, said
            self._session.screen.note(f"{self._host}  {said}")
        return line if line.state == "ready" else None


@standby.command()
@click.argument("host")
@pass_session
def remove(session: Session, *, host: str) -> int:
    """Take the role of standby, or the nomination, from HOST."""
    if not ask_yes(session, f"Take the role of standby from {host}?"):
        return _leave(session)
    session.api().ask("DELETE", f"{LIST}/{segment(host)}", Ack)
    _say(session, "standby-remove", f"{host} is no standby any more", {"host": host})
    session.screen.note("if it had the CA key, what it copied cannot be taken back")
    return Exit.OK


@standby.command()
@click.option("--force", is_flag=True, help="Also with rows missing or cut off; never if locked.")
@click.option("--dry-run", is_flag=True, help="Say what would happen.")
@click.option("--wait", type=DURATION, default=PROMOTE_WAIT, help="For the role (60s; 0s: not).")
@pass_session
def promote(session: Session, *, force: bool, dry_run: bool, wait: Duration) -> int:
    """Make this node the primary, or confirm the full powers of a caretaker.

    A primary that lives hands over; one that is silent is replaced. --force may lose what only the
    old primary knows.
    """
    question = "Promote this node although rows may be missing, or it may be cut off?"
    if force and not dry_run and not ask_yes(session, question):
        return _leave(session)
    api, began = session.api(TURN_MS), boottime_ms()
    answer = api.post(PROMOTE, PromotionAnswer, PromoteBody(force=force, dry_run=dry_run))
    if dry_run or answer.outcome in ("would", "confirmed") or not wait:
        _say(session, "standby-promote", _outcome(answer), public(answer) | {"dry_run": dry_run})
        return Exit.OK
    if answer.outcome == "asked":
        session.screen.note(answer.detail or "the primary was asked to hand over")
    node = until(lambda: _when_primary(api), wait.ms)
    took_s = (boottime_ms() - began) / 1000
    shown = public(answer) | {"dry_run": False, "primary": node is not None, "took_s": took_s}
    if node is None:
        why = _withheld(api) or answer.detail or "the primary has not handed over"
        _say(session, "standby-promote", f"not the primary yet: {why}", shown | {"withheld": why})
        return Exit.WAITING
    done = f"{node.host} is primary, term {node.term}, after {took_s:.1f} s"
    _say(session, "standby-promote", done, shown | {"term": node.term})
    return Exit.OK


def _outcome(answer: PromotionAnswer) -> str:
    said = {
        "would": f"would become primary, term {answer.term}",
        "confirmed": f"full powers confirmed, term {answer.term}",
        "asked": "the primary was asked to hand over",
        "promoted": f"primary, term {answer.term}",
    }.get(answer.outcome, f"{answer.outcome}, term {answer.term}")
    return f"{said}: {answer.detail}" if answer.detail else said


def _when_primary(api: Api) -> NodeView | None:
    node = api.get(NODE, NodeView)
    return node if node.role == "primary" and node.phase != "pending" else None


def _withheld(api: Api) -> str:
    try:
        return api.get(LIST, StandbysView).withheld
    except MeshError:
        return ""


@standby.command("step-down")
@click.option("--to", "successor", default="", metavar="HOST", help="Else the first ready one.")
@click.option("--wait", type=DURATION, default=STEP_DOWN_WAIT, help="For the next (15s; 0s: not).")
@pass_session
def step_down(session: Session, *, successor: str, wait: Duration) -> int:
    """Hand the primary's role to a standby. Refused when none is ready."""
    whom = successor or "the first ready standby"
    if not ask_yes(session, f"Hand the primary's role to {whom}?"):
        return _leave(session)
    api, began = session.api(TURN_MS), boottime_ms()
    answer = api.post(STEP_DOWN, StepDownAnswer, StepDownBody(successor=successor))
    shown = public(answer)
    if not wait or not answer.successor:
        _say(session, "standby-step-down", f"{answer.successor or 'nobody'} was asked", shown)
        return Exit.OK if answer.successor else Exit.ATTENTION
    session.screen.note(f"{answer.successor} was asked to take over")
    node = until(lambda: _when_led_by(api, answer.successor), wait.ms)
    took_s = (boottime_ms() - began) / 1000
    shown |= {"took_over": node is not None, "took_s": took_s}
    if node is None:
        said = f"{answer.successor} has not taken over yet: {session.command('standby list')}"
        _say(session, "standby-step-down", said, shown)
        return Exit.WAITING
    done = f"{answer.successor} is primary, term {node.term}, after {took_s:.1f} s"
    _say(session, "standby-step-down", done, shown | {"term": node.term})
    return Exit.OK


def _when_led_by(api: Api, successor: str) -> NodeView | None:
    node = api.get(NODE, NodeView)
    leader = node.mesh.primary if node.mesh else None
    followed = node.role != "primary" and leader is not None and leader.host == successor
    return node if followed else None


@standby.command()
@pass_session
def sync(session: Session) -> None:
    """Fetch from the primary, or bring it what it lacks, now instead of at the next round."""
    session.api().post(SYNC, Ack)
    _say(session, "standby-sync", "a round has begun")


def _leave(session: Session) -> int:
    session.screen.note("nothing was changed")
    return Exit.FAILED


def _say(
    session: Session, command: str, sentence: str, shown: dict[str, Any] | None = None
) -> None:
    if session.json:
        session.screen.object(command, shown or {"detail": sentence})
    else:
        session.screen.line(sentence)
