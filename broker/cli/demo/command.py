"""`certmesh demo`: options in, the run, what is left behind, exit status."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from typing_extensions import override

from broker.cli.demo.board import Board
from broker.cli.demo.failure import StepError
from broker.cli.demo.place import check_ports, claim, clear, nodes_in, stop_all
from broker.cli.demo.script import STEPS, Result, play
from broker.cli.demo.stage import Options, Stage
from broker.cli.demo.steps_join import require_terminal
from broker.clock import boottime_ms
from broker.runtime.exits import Exit


class StepRange(click.ParamType[frozenset[int]]):
    """Steps as people write them: `6`, `1-6`, `1-4,12`."""

    name = "steps"

    @override
    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[int]:
        """Return the numbers, or fail as wrong usage."""
        if isinstance(value, frozenset):
            return value
        try:
            found = frozenset(
                number
                for part in str(value).split(",")
                for number in range(int(part.split("-")[0]), int(part.split("-")[-1]) + 1)
            )
        except ValueError:
            self.fail(f"{value!r} is no range of steps such as 1-6", param, ctx)
        known = {step.number for step in STEPS}
        if not found & known:
            self.fail(f"there are only steps {sorted(known)}", param, ctx)
        return found & known


@click.command("demo")
@click.option("--home", type=click.Path(path_type=Path), default=Path(".demo"), help="Where to.")
@click.option("--keep", is_flag=True, help="Leave the three nodes running.")
@click.option("--clean", is_flag=True, help="Stop and remove an earlier demo, then leave.")
@click.option("--manual", is_flag=True, help="Step 4 waits for your own yes.")
@click.option("--no-color", is_flag=True, help="Plain text.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on stdout.")
@click.option("--only", type=StepRange(), default=frozenset(), help="Some steps, such as 1-6.")
@click.option("--slow", type=click.FloatRange(0, 60), default=0.0, help="Seconds between steps.")
def demo(**given: object) -> int:
    """Run a three-node mesh on 127.0.0.1 to 127.0.0.3 and prove every claim about it."""
    home, clean = given.pop("home"), given.pop("clean")
    assert isinstance(home, Path)
    if clean:
        return _clean(home)
    return _run(_options(home, given))


def run_demo(argv: Sequence[str]) -> int:
    """Run the demo with `argv`; return its exit status."""
    try:
        status: int = demo.main(list(argv), prog_name="certmesh demo", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("interrupted; stopped what was started", err=True)
        return Exit.INTERRUPTED
    return status


def _options(home: Path, given: dict[str, object]) -> Options:
    if given["manual"]:
        require_terminal()
    only, slow = given["only"], given["slow"]
    assert isinstance(only, frozenset)
    assert isinstance(slow, float)
    return Options(
        home=home,
        keep=bool(given["keep"]),
        manual=bool(given["manual"]),
        json=bool(given["as_json"]),
        colour=not given["no_color"] and sys.stdout.isatty(),
        slow_s=slow,
        only=only,
    )


def _clean(home: Path) -> int:
    try:
        removed = clear(home)
    except StepError as error:
        click.echo(f"{error.why}\n    do    {error.todo}", err=True)
        return Exit.FAILED
    click.echo(f"{home}: stopped and removed" if removed else f"{home}: nothing to remove")
    return Exit.OK


def _run(options: Options) -> int:
    board = Board(json=options.json, colour=options.colour)
    board.line(
        f"certmesh demo: three nodes on 127.0.0.1 to 127.0.0.3, state in {options.home} "
        "(nothing else on this machine changes)\n"
    )
    began_ms = boottime_ms()
    try:
        place = claim(options.home)
        check_ports(place)
    except StepError as error:
        board.failed(0, "prepare", error, 0.0)
        return _finish(board, options, [Result(0, "prepare", False, 0.0, error.why)], began_ms)  # noqa: FBT003 (a record)
    stage = Stage(options, board, place, *nodes_in(place))
    try:
        results = play(stage)
        _closing(stage, results)
    finally:
        if not options.keep:
            stop_all(place)
    return _finish(board, options, results, began_ms)


def _closing(stage: Stage, results: list[Result]) -> None:
    """Show where to look further; nothing here is asserted."""
    if not stage.options.keep or not all(result.passed for result in results):
        return
    stage.board.line()
    for node in stage.nodes:
        stage.board.show(f"certmesh --home {node.home} status")
    stage.board.show("stop and remove it all:  make demo-clean")


def _finish(board: Board, options: Options, results: list[Result], began_ms: int) -> int:
    passed = sum(result.passed for result in results)
    failed = len(results) - passed
    took_s = (boottime_ms() - began_ms) / 1000
    board.line(f"\n{passed} of {len(results)} steps passed in {took_s:.1f} s.")
    if options.json:
        click.echo(json.dumps(_object(results, passed, failed)))
    return Exit.OK if failed == 0 else Exit.FAILED


def _object(results: list[Result], passed: int, failed: int) -> dict[str, object]:
    steps = [
        {
            "n": result.number,
            "name": result.name,
            "ok": result.passed,
            "took_s": round(result.took_s, 3),
            "detail": result.detail,
        }
        for result in results
    ]
    return {"schema": "certmesh.demo/1", "steps": steps, "passed": passed, "failed": failed}
