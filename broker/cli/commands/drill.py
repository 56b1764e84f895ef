"""`certmesh drill`: a failure rehearsed on copies, with an exit status a monitor can watch.

Exit 0 when the mesh would survive, 3 when it would but something deserves attention, 1 when it
would not. Nothing live is touched: the broker's own program copies ledger and sealed keys into a
private directory, takes over there, and removes it; this command owns the directory above, so that
the copies are gone even if that program is killed.
"""

import tempfile

import click
import msgspec

from broker.cli.options import Noun, pass_session
from broker.cli.program import crashed, run
from broker.cli.public import public
from broker.cli.session import Session
from broker.cli.shape import span
from broker.cli.survival import Forecast
from broker.clock import wall_s
from broker.errors import MeshError, NoMeshError
from broker.runtime.exits import Exit
from broker.wire.console_api import Rehearsal, RehearsalStep
from broker.wire.standby import StandbysView

LIST = "/v1/standbys"


@click.group(cls=Noun)
def drill() -> None:
    """Rehearse a failure on copies; report pass or fail."""


@drill.command("primary-loss")
@pass_session
def primary_loss(session: Session) -> int:
    """Would this mesh survive the loss of its primary now?

    Best run on a standby: it is that node's own copy of the keys that has to open. Exit 0 yes, 3
    with warnings, 1 no.
    """
    if not session.paths.membership.exists():
        raise NoMeshError(
            f"the node in {session.home} belongs to no mesh",
            hint=f"{session.command('init NAME')} or {session.command('join INVITE')}",
        )
    session.screen.note("rehearsing on copies; nothing live is touched")
    copy = _rehearsed(session)
    forecast, found = _forecast(session, copy)
    steps = (*copy.steps, *found)
    status = _status(steps)
    if session.json:
        session.screen.object("drill-primary-loss", _payload(copy, forecast, steps, status))
    else:
        _draw(session, steps, _sentence(forecast, steps, status))
    return status


def _rehearsed(session: Session) -> Rehearsal:
    """Return what a takeover on copies came to."""
    paths = session.paths
    with tempfile.TemporaryDirectory(prefix="certmesh-drill-") as place:
        words = ("rehearse", str(paths.settings))
        done = run("broker", paths, *words, environ={"TMPDIR": place})
    try:
        return msgspec.json.decode(done.output, type=Rehearsal)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise crashed("broker", done.status, paths) from None


def _forecast(
    session: Session, copy: Rehearsal
) -> tuple[Forecast | None, tuple[RehearsalStep, ...]]:
    """Return what the running node adds: who is awake, and how long it would take."""
    try:
        view = session.api().get(LIST, StandbysView)
    except MeshError as error:
        return None, (RehearsalStep("succession", "fail", error.detail, error.hint),)
    forecast = Forecast(view, copy, session.settings.failover, wall_s())
    return forecast, tuple(forecast.steps())


def _status(steps: tuple[RehearsalStep, ...]) -> Exit:
    states = {step.state for step in steps}
    if "fail" in states:
        return Exit.FAILED
    return Exit.ATTENTION if "warn" in states else Exit.OK


def _sentence(forecast: Forecast | None, steps: tuple[RehearsalStep, ...], status: Exit) -> str:
    failures = sum(step.state == "fail" for step in steps)
    warnings = sum(step.state == "warn" for step in steps)
    counts = f"{_count(failures, 'failure')}, {_count(warnings, 'warning')}"
    if status is Exit.FAILED or forecast is None:
        return f"this mesh would not survive the loss of its primary: {counts}"
    heir, takeover_ms = forecast.heir, forecast.takeover_ms
    assert heir is not None
    assert takeover_ms is not None
    said = f"this mesh survives the loss of its primary: {heir.host} within"
    return f"{said} {span(takeover_ms / 1000)}{f'; {counts}' if warnings else ''}"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _draw(session: Session, steps: tuple[RehearsalStep, ...], sentence: str) -> None:
    screen = session.screen
    width = max(len(step.name) for step in steps)
    for step in steps:
        screen.line(f"{step.state:<4}  {step.name:<{width}}  {step.detail}")
        if step.hint and step.state != "ok":
            screen.line(f"{'':<{width + 8}}do: {step.hint}")
    screen.line(sentence)


def _payload(
    copy: Rehearsal, forecast: Forecast | None, steps: tuple[RehearsalStep, ...], status: Exit
) -> dict[str, object]:
    heir = forecast.heir if forecast else None
    takeover_ms = forecast.takeover_ms if forecast else None
    verdict = {Exit.OK: "pass", Exit.ATTENTION: "warn"}.get(status, "fail")
    told = {name: value for name, value in public(copy).items() if name != "steps"}
    return told | {
        "verdict": verdict,
        "heir": heir.host if heir else None,
        "takeover_s": None if takeover_ms is None else takeover_ms / 1000,
        "steps": [public(step) for step in steps],
    }
