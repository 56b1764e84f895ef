"""`certmesh status`.

Status answers 0 when all is well, 3 when it works but something deserves attention (a locked CA is
such a thing: status itself needed no key), 4 when nothing runs, 6 when there is no mesh.
"""

import click

from broker.cli.compliance import show_compliance
from broker.cli.options import MeshCommand, pass_session
from broker.cli.public import public
from broker.cli.roster import draw_members
from broker.cli.session import Session
from broker.cli.shape import ago, day, due_in, span
from broker.cli.succession import FULL, limits, named, silence, standbys, unfit
from broker.runtime.exits import Exit
from broker.wire.node import OutageView, StatusView

TELLING = frozenset({"suspecting", "pending", "caretaking"})
"""Phases of the succession that say more than the role does."""


@click.command(cls=MeshCommand)
@click.option("--limit", default=500, show_default=True, help="Members to list.")
@click.option("--compliance", is_flag=True, help="Check the rules of a well-kept mesh instead.")
@pass_session
def status(session: Session, *, limit: int, compliance: bool) -> int:
    """Show mesh and node in one screen.

    Exit: 0 healthy, 3 needs attention or a rule fails, 4 not running, 6 no mesh here.
    """
    if compliance:
        return show_compliance(session)
    view = session.api().get(f"/v1/status?limit={limit}", StatusView)
    concerns = (*_concerns(session, view), *_warnings(view))
    if session.json:
        session.screen.object("status", public(view) | {"attention": list(concerns)})
    else:
        _draw(session, view, concerns)
    if view.node.mesh is None:
        return Exit.NO_MESH
    return Exit.ATTENTION if concerns else Exit.OK


def _concerns(session: Session, view: StatusView) -> tuple[str, ...]:
    """Return what deserves attention beyond what the broker warned about itself."""
    said = " ".join(view.warnings)
    found = []
    if view.node.ca == "locked" and "lock" not in said:
        found.append(f"the CA is locked, nothing is signed: {session.command('ca unlock')}")
    own = view.own.not_after if view.own else None
    if view.node.mesh is not None and own is None and "no certificate" not in said:
        found.append("this node has no certificate yet")
    found += [line for line in _of_succession(session, view) if line not in said]
    if view.approvals_pending:
        waiting = f"{view.approvals_pending} waiting for approval"
        found.append(f"{waiting}: {session.command('approval list')}")
    return tuple(found)


def _warnings(view: StatusView) -> tuple[str, ...]:
    """Return what the broker warned of; its sentence on powers lacks the command that ends it."""
    powers = view.node.powers
    return tuple(text for text in view.warnings if powers in FULL or powers not in text)


def _of_succession(session: Session, view: StatusView) -> list[str]:
    """Return what is wrong with who leads and who could."""
    found = []
    silent_s = _silent_s(session, view)
    if silent_s and not any("silent" in text for text in view.warnings):
        found.append(f"primary silent {span(silent_s)}: {session.command('standby list')}")
    refused = limits(view.node.powers, session.command("standby promote"))
    return [*found, *([refused] if refused else []), *unfit(view.standbys)]


def _silent_s(session: Session, view: StatusView) -> int:
    tick_ms = session.settings.failover.tick.ms
    return silence(view.standbys, view.node.host, tick_ms, view.now)


def _draw(session: Session, view: StatusView, concerns: tuple[str, ...]) -> None:
    screen = session.screen
    if view.node.mesh is None:
        screen.line(f"this node ({view.node.host}) belongs to no mesh")
        joining = session.command("join INVITE")
        screen.line(f"next  {session.command('init NAME')}  or  {joining}")
        return
    screen.pairs(_headlines(view, _silent_s(session, view)))
    screen.line()
    draw_members(screen, view.members, view.now)
    if view.member_count > len(view.members):
        more = view.member_count - len(view.members)
        screen.line(f"{more} more: {session.command('member list')}")
    screen.line()
    for concern in concerns:
        screen.line(f"warning   {concern}")
    if not concerns:
        screen.line("ok")


def _headlines(view: StatusView, silent_s: int) -> list[tuple[str, str]]:
    node, mesh = view.node, view.node.mesh
    assert mesh is not None
    primary = mesh.primary.host if mesh.primary else "unknown"
    silent = f" (silent {span(silent_s)})" if silent_s else ""
    parts = [_authority(view), f"primary {primary}{silent}", *_standbys(view, primary)]
    parts.append(f"enrollment {'open' if view.enrollment_open else 'closed'}")
    return [
        (f"mesh {mesh.name}", "   ".join(parts)),
        ("this node", f"{node.host}  {_role(view)}   {_own(view)}"),
        ("continuity", _continuity(view)),
    ]


def _standbys(view: StatusView, primary: str) -> list[str]:
    """Return who could take over; a member knows their names from the bundle, and no more."""
    known = [named(line) for line in standbys(view.standbys)]
    if not view.standbys:
        known = [holder.host for holder in view.node.key_holders if holder.host != primary]
    return [f"standby {', '.join(known)}"] if known else []


def _role(view: StatusView) -> str:
    """Return the role of this node, with its lag and phase where they say more."""
    own = next((line for line in view.standbys if line.host == view.node.host), None)
    said = []
    if own is not None and own.role == "standby" and own.lag is not None:
        said.append(f"lag {own.lag}")
    if view.node.phase in TELLING:
        said.append(view.node.phase)
    return f"{view.node.role} ({', '.join(said)})" if said else view.node.role


def _authority(view: StatusView) -> str:
    term = f"term {view.node.term}"
    said = {"unlocked": f"CA ok (unlocked, {term})", "locked": f"CA LOCKED ({term})"}
    return said.get(view.node.ca, f"CA elsewhere ({term})")


def _own(view: StatusView) -> str:
    own = view.own
    if own is None or own.not_after is None:
        return "no certificate yet"
    if own.not_after < view.now:
        return f"certificate expired {ago(own.not_after, view.now)}"
    due = due_in(own.renew_at, view.now)
    renews = "renewal is due" if due == "due" else f"renews in {due}"
    return f"certificate valid {span(own.not_after - view.now)}, {renews}"


def _continuity(view: StatusView) -> str:
    if view.survives_until is None:
        return "unknown until members have certificates"
    many, budget = view.member_count > 1, _budget(view.outage)
    if view.survives_until <= view.now:
        over = "a member's certificate" if many else "this node's certificate"
        return f"{over} has expired" + (f" ({budget})" if budget else "")
    whom = "every member" if many else "this node"
    left = ", ".join(filter(None, (span(view.survives_until - view.now), budget)))
    return f"{whom} survives a dead CA until {day(view.survives_until)} ({left})"


def _budget(outage: OutageView | None) -> str:
    """Return how that stands against the budget; a member does not know it."""
    if outage is None:
        return ""
    promised = f"budget {span(outage.budget_s)}:"
    if not outage.met:
        return f"{promised} NOT MET by {_short(outage)}"
    if outage.planned_s < outage.budget_s:
        return f"{promised} met for now, the policy plans {span(outage.planned_s)}"
    return f"{promised} met"


def _short(outage: OutageView) -> str:
    if outage.short_members <= 1:
        return outage.weakest
    return f"{outage.short_members} members, {outage.weakest} first"
