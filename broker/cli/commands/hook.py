"""`certmesh hook`: what runs on this host when its certificate has changed."""

import os
from typing import Any, get_args

import click
import msgspec

from broker.cli.api import segment
from broker.cli.options import DURATION, Noun, pass_session
from broker.cli.program import crashed, run
from broker.cli.prompt import ask_yes
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import ago, duration_text, rfc3339
from broker.cli.tomlfile import parsed, with_hook, without_hook
from broker.clock import wall_s
from broker.errors import ConflictError, NotFoundError
from broker.runtime.duration import Duration
from broker.runtime.exits import Exit
from broker.runtime.files import write_kept
from broker.runtime.settings import HookEvent, Settings, parse_settings
from broker.wire.console_api import HookRun, HookRunsView, HooksView, HookTrial

PROGRAM = "workers.renewal"
UNKNOWN_HOOK = 2


@click.group(cls=Noun)
def hook() -> None:
    """What runs after a renewal, on this host."""


@hook.command("list")
@pass_session
def list_(session: Session) -> None:
    """List the hooks of certmesh.toml and of hooks.d/."""
    view = session.api().get("/v1/hooks", HooksView)
    if session.json:
        session.screen.object("hook-list", public(view))
        return
    session.screen.table(
        ("NAME", "ON", "LIMIT", "USER", "FROM", "COMMAND"),
        [
            (
                line.name,
                ", ".join(line.event),
                duration_text(line.timeout_ms) if line.timeout_ms else "-",
                line.user or "-",
                line.source,
                " ".join(line.command),
            )
            for line in view.hooks
        ],
    )


@hook.command()
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option(
    "--event",
    multiple=True,
    type=click.Choice(get_args(HookEvent)),
    help="When to run (usual: issued and renewed). Repeatable.",
)
@click.option("--timeout", type=DURATION, help="Kill it after this long (usual: 30s).")
@click.option(
    "--user",
    default="",
    help="Run as this user (usual: the node's own; on a node of root's [node] hook_user, nobody).",
)
@click.option("--retries", type=click.IntRange(0, 10), default=0, help="Try again this often.")
@click.option("--dry-run", is_flag=True, help="Check it and say what would be added.")
@pass_session
def add(
    session: Session, /, name: str, command: tuple[str, ...], *, dry_run: bool, **given: Any
) -> None:
    """Add a hook to certmesh.toml.

    Such as:  certmesh hook add nginx --user root -- systemctl reload nginx

    COMMAND is an argument list, never a shell line. The next renewal uses it; no restart.
    """
    if name in {known.name for known in session.settings.hook}:
        raise ConflictError(
            f"there is a hook {name} already", hint=session.command(f"hook remove {name}")
        )
    entry: dict[str, object] = {"name": name, "command": list(command)}
    limit: Duration | None = given["timeout"]
    optional = {
        "event": list(given["event"]),
        "timeout": duration_text(limit.ms) if limit else "",
        "user": given["user"],
        "retries": given["retries"],
    }
    entry |= {key: value for key, value in optional.items() if value}
    file = session.settings_file
    _replace(session, with_hook(file.read_text(encoding="utf-8"), entry), dry_run=dry_run)
    if os.geteuid() == 0 and not given["user"]:
        who = session.settings.node.hook_user
        session.screen.note(f"it runs as {who}; --user root if it needs the rights of root")
    done = f"hook {name} added; {session.command(f'hook test {name}')}"
    _say(session, "hook-add", name, f"would add hook {name}" if dry_run else done, dry_run=dry_run)


@hook.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@pass_session
def remove(session: Session, *, name: str, dry_run: bool) -> int:
    """Take a hook out of certmesh.toml; files in hooks.d/ are yours to remove."""
    if name not in {known.name for known in session.settings.hook}:
        raise NotFoundError(f"certmesh.toml has no hook {name}", hint=session.command("hook list"))
    if not dry_run and session.interactive and not ask_yes(session, f"Remove hook {name}?"):
        return Exit.FAILED
    file = session.settings_file
    _replace(session, without_hook(file.read_text(encoding="utf-8"), name), dry_run=dry_run)
    line = f"would remove hook {name}" if dry_run else f"hook {name} removed"
    _say(session, "hook-remove", name, line, dry_run=dry_run)
    return Exit.OK


def _replace(session: Session, text: str, *, dry_run: bool) -> Settings:
    """Write the settings file once its new text is known to be good; return what it says."""
    file = session.settings_file
    settings = parse_settings(parsed(text, str(file)), str(file))
    if not dry_run:
        write_kept(file, text.encode())
    return settings


def _say(session: Session, schema: str, name: str, line: str, *, dry_run: bool) -> None:
    if session.json:
        session.screen.object(schema, {"name": name, "dry_run": dry_run})
    else:
        session.screen.line(line)


@hook.command()
@click.argument("name")
@pass_session
def test(session: Session, *, name: str) -> int:
    """Run a hook now, with CERTMESH_DRY_RUN=1; -v shows what it is told. Exit 1 when it fails."""
    paths = session.paths
    done = run(PROGRAM, paths, str(paths.settings), "--test-hook", name)
    if done.status == UNKNOWN_HOOK:
        raise click.UsageError(f'there is no hook "{name}": {session.command("hook list")}')
    try:
        outcome = msgspec.json.decode(done.output, type=HookTrial)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise crashed(PROGRAM, done.status, paths) from None
    if session.json:
        session.screen.object("hook-test", public(outcome))
    else:
        session.screen.line(f"{_verdict(outcome)}  {outcome.hook}  {outcome.took_s:.2f} s")
        if session.verbose:
            session.screen.pairs([("user", outcome.user or "the node's own")])
            session.screen.pairs(sorted(outcome.environment.items()))
        session.screen.block(outcome.output)
    return Exit.OK if outcome.exit == 0 else Exit.FAILED


@hook.command()
@click.argument("name", required=False)
@click.option("--limit", default=20, show_default=True, help="At most this many runs.")
@click.option("--full", is_flag=True, help="Show all the output kept of the last run that failed.")
@pass_session
def log(session: Session, *, name: str | None, limit: int, full: bool) -> None:
    """Show what ran, newest first."""
    path = f"/v1/hooks/runs?limit={limit}" + (f"&name={segment(name)}" if name else "")
    view = session.api().get(path, HookRunsView)
    if full:
        _show_failed(session, view)
        return
    if session.json:
        session.screen.object("hook-log", public(view))
        return
    now = wall_s()
    session.screen.table(
        ("WHEN", "HOOK", "EVENT", "RESULT", "TOOK", "LAST LINE"),
        [
            (
                ago(line.at, now),
                line.hook,
                line.event,
                _verdict(line),
                f"{line.took_s:.2f} s",
                (line.output.strip().splitlines() or ["-"])[-1],
            )
            for line in view.runs
        ],
    )


def _show_failed(session: Session, view: HookRunsView) -> None:
    """Show the last run that failed, all that is kept of its output included."""
    failed = next((run for run in view.runs if run.failed), None)
    if session.json:
        session.screen.object("hook-log-full", {"run": public(failed) if failed else None})
    elif failed is None:
        session.screen.line("none of these runs failed")
    else:
        session.screen.line(
            f"{_verdict(failed)}  {failed.hook}  {failed.event}  {rfc3339(failed.at)}  "
            f"{failed.took_s:.2f} s"
        )
        session.screen.block(failed.output)


def _verdict(line: HookRun) -> str:
    if line.cut_short:
        return "cut short by a stop"
    if line.timed_out:
        return "fail (timed out)"
    return "ok" if line.exit == 0 else f"fail (exit {line.exit})"
