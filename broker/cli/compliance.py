"""`certmesh status --compliance`: the rules of a well-kept mesh, and which of them hold."""

from broker.cli.public import public
from broker.cli.session import Session
from broker.runtime.exits import Exit
from broker.wire.audit import ComplianceLine, ComplianceView

PATIENCE_MS = 120_000
"""The chain of the audit trail is recomputed for it."""
HINT_COLUMN = 24


def show_compliance(session: Session) -> int:
    """Print one line for each rule; 3 when one fails, warnings alone are fine."""
    view = session.api(PATIENCE_MS).get("/v1/compliance", ComplianceView)
    fails = sum(line.state == "fail" for line in view.lines)
    warns = sum(line.state == "warn" for line in view.lines)
    if session.json:
        summed = {"ok": not fails, "failures": fails, "warnings": warns}
        session.screen.object("compliance", public(view) | summed)
    else:
        session.screen.line(f"mesh {view.mesh_name}, profile {view.profile}")
        for line in view.lines:
            _say(session, line)
        session.screen.line(f"{fails} failed, {warns} warnings, of {len(view.lines)} rules")
    return Exit.ATTENTION if fails else Exit.OK


def _say(session: Session, line: ComplianceLine) -> None:
    session.screen.line(f"{line.state:<5} {line.rule:<17} {line.detail}")
    if line.hint and line.state != "ok":
        session.screen.line(f"{'do: ':>{HINT_COLUMN}}{line.hint}")
