"""How the mesh would fare without a CA, and which members need somebody: over the whole roster.

A status lists some hundred members; what is wrong with others must show as well. Each question
walks an index and stops, so the cost does not grow with the mesh.
"""

from collections.abc import Iterator

from broker.core.outage import assess
from broker.errors import MeshError
from broker.ledger.rows import CertificateRow, MemberRow, MeshRow
from broker.shell.bounds import bounds_of
from broker.shell.lines import Lines
from broker.shell.state import BrokerState
from broker.units import UnixSeconds
from broker.wire.node import MemberLine, OutageView

CONCERNS_MAX = 64
"""Of each kind; a person mends a few and looks again."""


def outage_view(state: BrokerState, mesh: MeshRow, now: UnixSeconds) -> OutageView:
    """Return how long the mesh lives without any CA, on a node that has the roster."""
    found = state.ledger.weakest()
    weakest = Lines(state, now).of(*found) if found is not None else None
    until = weakest.survives_until if weakest is not None else None
    budget_s = mesh.policy.outage_budget_s
    short = until is not None and until < now + budget_s
    return assess(
        mesh.policy,
        weakest,
        state.ledger.ending_count(now + budget_s) if short else 0,
        now=now,
        ca_not_after=_ca_not_after(state) if short else None,
    )


def _ca_not_after(state: BrokerState) -> int | None:
    try:
        return bounds_of(state).not_after
    except MeshError:
        return None  # a standby without the key yet


def troubled_lines(state: BrokerState, now: UnixSeconds) -> Iterator[MemberLine]:
    """Yield members that need somebody, each once: expired, then not served, then overdue."""
    lines, seen = Lines(state, now), set[str]()
    for row, held in _troubled(state, now):
        if row.member_id not in seen:
            seen.add(row.member_id)
            yield lines.of(row, held)


def _troubled(
    state: BrokerState, now: UnixSeconds
) -> Iterator[tuple[MemberRow, CertificateRow | None]]:
    yield from state.ledger.ending(now + 1, CONCERNS_MAX)
    yield from state.ledger.troubled(CONCERNS_MAX)
    yield from state.ledger.due(now, CONCERNS_MAX)
