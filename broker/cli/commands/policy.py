"""`certmesh ca policy`: what the mesh allows, for all of it at once."""

import click

from broker.cli.options import Noun, pass_session
from broker.cli.policyfields import lines_of, patch_of
from broker.cli.prompt import ask_yes
from broker.cli.public import public
from broker.cli.session import Session
from broker.runtime.exits import Exit
from broker.wire.policy import PolicyBody, PolicyView

PATH = "/v1/ca/policy"
SURVEY_MS = 35_000
"""A large roster is looked at in steps; the node gives up before this command does."""


@click.group(cls=Noun)
def policy() -> None:
    """Lifetime, names, networks, outage budget, who must agree."""


@policy.command()
@pass_session
def show(session: Session) -> int:
    """Show the policy in force, how far it may go, and whom it leaves out (then exit 3)."""
    view = session.api(SURVEY_MS).get(PATH, PolicyView)
    if session.json:
        session.screen.object("ca-policy-show", public(view))
    else:
        session.screen.pairs(
            [
                *lines_of(view.policy),
                ("", ""),
                ("CA permits", ", ".join(view.permitted_names) or "no names"),
                ("", ", ".join(view.permitted_networks) or "no networks"),
            ]
        )
        _say_outside(session, view, "gets")
    return Exit.ATTENTION if view.outside_total else Exit.OK


@policy.command("set")
@click.argument("words", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.option("--dry-run", is_flag=True, help="Say what would change and who would fall outside.")
@pass_session
def set_(session: Session, *, words: tuple[str, ...], dry_run: bool) -> int:
    """Change the policy of the whole mesh.

    KEY is a line of `ca policy show`: names and networks with commas, durations like 30d, the
    others yes or no. Members that fall outside keep their certificate until it ends and get no
    new one, so they are asked about first. A new profile brings its row of answers with it.
    """
    try:
        patch = patch_of(words)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    api = session.api(SURVEY_MS)
    view = api.ask("PUT", PATH, PolicyView, PolicyBody(patch=patch, dry_run=True))
    if dry_run:
        _say_change(session, view, dry_run=True)
        return Exit.ATTENTION if view.outside_total else Exit.OK
    if view.changed and view.outside_total:
        if not session.json:
            _say_outside(session, view, "would get")
        if not ask_yes(session, f"Leave {_members(view.outside_total)} without new certificates?"):
            session.screen.note("nothing was changed")
            return Exit.FAILED
    if view.changed:
        view = api.ask("PUT", PATH, PolicyView, PolicyBody(patch=patch))
    _say_change(session, view, dry_run=False)
    return Exit.OK


def _say_change(session: Session, view: PolicyView, *, dry_run: bool) -> None:
    if session.json:
        session.screen.object("ca-policy-set", public(view) | {"dry_run": dry_run})
        return
    if not view.changed:
        session.screen.line("nothing changes: the policy is that already")
    changed = {name.removesuffix("_s") for name in view.changed}
    session.screen.pairs([line for line in lines_of(view.policy) if line[0] in changed])
    _say_outside(session, view, "would get" if dry_run else "gets")


def _say_outside(session: Session, view: PolicyView, verb: str) -> None:
    """Print each member outside with its names outside, then what deserves attention."""
    for line in view.outside:
        session.screen.line(f"outside  {line.host} {verb} no certificate: {', '.join(line.names)}")
    if view.outside_total > len(view.outside):
        more = view.outside_total - len(view.outside)
        session.screen.line(f"outside  and {_members(more)} more")
    for text in view.warnings:
        session.screen.warn(text)


def _members(count: int) -> str:
    return "1 member" if count == 1 else f"{count} members"
