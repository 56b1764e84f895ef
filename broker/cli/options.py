"""The global options, accepted before and after every command word."""

from typing import Any

import click

from broker.cli.outcome import report
from broker.cli.session import Session
from broker.errors import MeshError
from broker.runtime.duration import Duration

pass_session = click.make_pass_decorator(Session, ensure=True)


class DurationType(click.ParamType[Duration]):
    """A duration as settings write it: `30s`, `5m`, `12h`."""

    name = "duration"

    def convert(  # type: ignore[explicit-override]  # typing.override is 3.12
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Duration:
        """Return the duration, or fail as wrong usage."""
        if isinstance(value, Duration):
            return value
        try:
            return Duration.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


DURATION = DurationType()


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    """Store a global option, wherever on the line it was given."""
    session = ctx.ensure_object(Session)
    source = ctx.get_parameter_source(param.name or "")
    if source is click.core.ParameterSource.COMMANDLINE:
        setattr(session, str(param.name), value)


def global_options(*, hidden: bool) -> list[click.Option]:
    """Return the options every command takes; `hidden` keeps a command's own help short."""
    shared: dict[str, Any] = {"expose_value": False, "callback": _keep, "is_eager": True}
    quiet = {**shared, "hidden": hidden}
    return [
        click.Option(["--json"], is_flag=True, help="Print one JSON object.", **shared),
        click.Option(
            ["--home", "home_option"],
            metavar="DIR",
            help="The node's directory (else CERTMESH_HOME, else the usual place).",
            **quiet,
        ),
        click.Option(["--quiet"], is_flag=True, help="No progress, only answers.", **quiet),
        click.Option(["-v", "--verbose"], is_flag=True, help="Say more when it fails.", **quiet),
        click.Option(
            ["--color"],
            type=click.Choice(["auto", "always", "never"]),
            help="Colour of tables; NO_COLOR is honoured.",
            **quiet,
        ),
        click.Option(["--no-input"], is_flag=True, help="Never ask, fail instead.", **quiet),
        click.Option(["--yes"], is_flag=True, help="Answer yes to every question.", **quiet),
        click.Option(
            ["--operator", "operator_option"],
            metavar="NAME",
            help="Who you are, where the account is shared (else CERTMESH_OPERATOR, else sudo's).",
            **quiet,
        ),
        click.Option(["--timeout", "timeout_ms"], type=DURATION, help="How long to wait.", **quiet),
    ]


class MeshCommand(click.Command):
    """A command that takes the global options too."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Return its own options, and the global ones it does not use for something else."""
        own = super().get_params(ctx)
        taken = {word for param in own for word in param.opts}
        shared = [param for param in global_options(hidden=True) if not taken & set(param.opts)]
        return [*own, *shared]

    def invoke(self, ctx: click.Context) -> Any:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Run the command; expected trouble becomes its three parts and an exit status."""
        try:
            return super().invoke(ctx)
        except MeshError as error:
            session = ctx.ensure_object(Session)
            return report(ctx.command_path, error, as_json=session.json)


class Noun(click.Group):
    """`certmesh NOUN VERB`."""

    command_class = MeshCommand

    def list_commands(self, ctx: click.Context) -> list[str]:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Return the verbs in the order they were written, which is the order of use."""
        del ctx
        return list(self.commands)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:  # type: ignore[explicit-override]  # typing.override is 3.12
        """Return its own options and the global ones."""
        return [*super().get_params(ctx), *global_options(hidden=True)]
