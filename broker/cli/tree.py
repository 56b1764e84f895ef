"""The root of the command tree, and the only place where trouble turns into an exit status."""

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from broker.cli.lazy import LazyGroup
from broker.cli.options import global_options
from broker.cli.outcome import CRASH_CODE, CRASH_HINT, USAGE_CODE, say_trouble
from broker.cli.shape import clean
from broker.runtime.exits import Exit

_ROOM = "broker.cli.commands"
COMMANDS = {
    "init": (f"{_ROOM}.init:init", "Create a mesh here: CA, passphrase, settings."),
    "join": (f"{_ROOM}.join:join", "Enrol this host in a mesh, by invite or TOTP code."),
    "leave": (
        f"{_ROOM}.leave:leave",
        "Leave the mesh: certificates end, the private key is deleted, the rest is set aside.",
    ),
    "up": (f"{_ROOM}.up:up", "Start this node's processes and wait until they are ready."),
    "down": (f"{_ROOM}.up:down", "Stop this node's processes, workers before the broker."),
    "reload": (
        f"{_ROOM}.reload:reload_node",
        "Let the running processes take over changed settings, without stopping the node.",
    ),
    "status": (f"{_ROOM}.status:status", "Show mesh and node in one screen."),
    "ps": (f"{_ROOM}.ps:ps", "Show the processes: state, restarts, last success, next run."),
    "demo": (f"{_ROOM}.demo:demo", "Run a three-node mesh on this machine."),
    "ca": (f"{_ROOM}.ca:ca", "Show, unlock or lock the certificate authority."),
    "invite": (f"{_ROOM}.invite:invite", "Make, list and revoke single-use tickets for a host."),
    "enrollment": (
        f"{_ROOM}.enrollment:enrollment",
        "Open or close the door for TOTP codes, or change the secret behind them.",
    ),
    "approval": (f"{_ROOM}.approval:approval", "Decide about joins that wait for a person."),
    "member": (f"{_ROOM}.member:member", "Show, revoke, reinstate or rename members."),
    "standby": (
        f"{_ROOM}.standby:standby",
        "Hot standbys: who takes over, and taking over on purpose.",
    ),
    "review": (
        f"{_ROOM}.review:review",
        "Conflicts that the merge decided, for a person to look at.",
    ),
    "peers": (
        f"{_ROOM}.peers:peers",
        "Show known and discovered nodes: who answers, in which role.",
    ),
    "drill": (f"{_ROOM}.drill:drill", "Rehearse a failure on copies; report pass or fail."),
    "cert": (f"{_ROOM}.cert:cert", "Show, renew or check this host's certificate."),
    "hook": (f"{_ROOM}.hook:hook", "What runs after a renewal, on this host."),
    "notify": (
        f"{_ROOM}.notify:notify",
        "Who hears of trouble, what they were told, and whether it gets through.",
    ),
    "audit": (f"{_ROOM}.audit:audit", "Read, verify and export the audit trail."),
    "backup": (f"{_ROOM}.backup:backup", "Make, list, verify and restore backups of a key holder."),
    "trust": (
        f"{_ROOM}.trust:trust",
        "Let other programs of this machine trust the mesh: system, NSS and Firefox stores.",
    ),
    "token": (
        f"{_ROOM}.token:token",
        "Make, list and revoke keys for programs that use the API.",
    ),
    "worker": (
        f"{_ROOM}.worker:worker",
        "Let renewal workers on other machines work for this CA.",
    ),
    "config": (f"{_ROOM}.config:config", "Show and check settings."),
    "version": (f"{_ROOM}.version:version", "Print versions of everything that matters."),
}


class Root(LazyGroup):
    """`certmesh`: every failure ends in a sentence and a documented exit status."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Return the global options."""
        return [*super().get_params(ctx), *global_options(hidden=False)]

    def main(self, args: Sequence[str] | None = None, **extra: Any) -> Any:  # type: ignore[override,explicit-override]  # one signature; typing.override is 3.12
        """Run one command line and leave with its exit status."""
        given = list(sys.argv[1:] if args is None else args)
        extra |= {"standalone_mode": False, "prog_name": "certmesh"}
        sys.exit(self._outcome(given, extra))

    def _outcome(self, given: list[str], extra: dict[str, Any]) -> int:
        try:
            status = super().main(given, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            return _leave_the_pipe()
        except (click.exceptions.Abort, KeyboardInterrupt):
            sys.stderr.write("interrupted\n")
            return Exit.INTERRUPTED
        except click.ClickException as error:
            return _say_usage(error, as_json="--json" in given)
        except Exception as error:  # noqa: BLE001 (the outermost frame of the command)
            return _say_crash(error, given)
        return int(status) if isinstance(status, int) else Exit.OK


def _say_usage(error: click.ClickException, *, as_json: bool) -> int:
    if as_json:
        say_trouble("certmesh", USAGE_CODE, error.format_message(), "", as_json=True)
    else:
        # It quotes what was typed, and what was typed was copied from somewhere.
        shown = io.StringIO()
        error.show(shown)
        sys.stderr.write("".join(f"{clean(line)}\n" for line in shown.getvalue().splitlines()))
    return error.exit_code


def _say_crash(error: Exception, given: list[str]) -> int:
    if {"-v", "--verbose"} & set(given):
        sys.excepthook(type(error), error, error.__traceback__)
    detail = f"{type(error).__name__}: {error}"
    say_trouble("certmesh", CRASH_CODE, detail, CRASH_HINT, as_json="--json" in given)
    return Exit.FAILED


def _leave_the_pipe() -> int:
    """Return quietly after the reader closed: `certmesh member list | head` is no error."""
    # The interpreter flushes stdout once more at exit; let that go nowhere.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.FAILED


root = Root(
    name="certmesh",
    lazy=COMMANDS,
    help="A private certificate authority for a LAN that keeps working.",
    epilog="Exit status: 0 done, 1 failed, 2 usage, 3 attention, 4 not running, 5 CA locked, "
    "6 no mesh, 7 refused, 8 waiting, 9 conflict, 78 settings.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
