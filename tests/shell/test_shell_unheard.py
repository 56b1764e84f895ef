"""The watchdog's report names whom the broker never heard, once both had the time."""

from pathlib import Path

from broker.core.unheard import PATIENCE_MS
from broker.units import Millis
from broker.wire.ids import Service
from broker.wire.supervision import OverdueView, ProcessLine, ReportProcesses
from tests.shell.office import Office


def test_a_process_frozen_since_before_the_broker_started_is_named(home: Path) -> None:
    """Renewal hung, then the broker was replaced: it never broke a promise to this one (row 5)."""
    office = Office.create(home)
    state = office.desk.state
    lines = tuple(
        ProcessLine(name, pid, "RUNNING", 0, 0, PATIENCE_MS)
        for name, pid in (("renewal-0", 4711), ("broker", 4712))
    )
    assert named(office, lines) == []
    state.started_ms = Millis(state.started_ms - PATIENCE_MS)
    assert named(office, lines) == [("renewal-0", 4711)]


def named(office: Office, lines: tuple[ProcessLine, ...]) -> list[tuple[str, int]]:
    """Return who the watchdog is told to end."""
    view = office.ask(Service.WATCHDOG, ReportProcesses(lines), OverdueView)
    return [(one.instance, one.pid) for one in view.overdue]
