"""`certmesh demo`: the three-node mesh on this machine; the demo has a room of its own."""

import importlib
from typing import Any

import click

from broker.cli.options import MeshCommand, pass_session
from broker.cli.session import Session

ROOM = "broker.cli.demo"


@click.command(cls=MeshCommand)
@click.option("--keep", is_flag=True, help="Leave the nodes running.")
@click.option("--manual", is_flag=True, help="Approve the join yourself.")
@click.option("--only", metavar="1-6", help="Run only these steps (and what they need).")
@click.option("--slow", type=float, metavar="SECONDS", help="Pause between steps.")
@click.option("--clean", is_flag=True, help="Stop and remove an earlier demo, then leave.")
@click.option("--no-color", is_flag=True, help="Plain text.")
@pass_session
def demo(session: Session, /, **given: Any) -> int:
    """Run a three-node mesh on this machine.

    Its nodes live in --home (usual: ./.demo), never in the home of a real node.
    """
    words = ["--home", session.home_option] if session.home_option else []
    for name in ("only", "slow"):
        words += [f"--{name}", str(given[name])] if given[name] else []
    flags = {"--json": session.json, "--no-color": session.color == "never" or given["no_color"]}
    flags |= {f"--{name}": given[name] for name in ("keep", "clean", "manual")}
    words += [flag for flag, is_set in flags.items() if is_set]
    return int(importlib.import_module(ROOM).main(words))
