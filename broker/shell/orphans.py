"""Rows this node wrote in a reign that was outranked: kept until they are in the mesh's journal."""

from collections.abc import Sequence

from broker.core.adoption import Orphan, adopt_page
from broker.core.rollover import conflicts
from broker.errors import MalformedMessageError, UnknownKindError
from broker.ledger.lines import line_of
from broker.runtime.events import EventName
from broker.runtime.logs import log
from broker.shell.batch import Batch
from broker.shell.state import BrokerState
from broker.units import Millis
from broker.wire.events import BundleMoved
from broker.wire.facts import MergeConflict
from broker.wire.replica import OrphanLine, OrphanPage

ACTOR = "failover"
SAID_EVERY_MS = 3_600_000
ORPHAN_BYTES_MAX = 65_536
"""Adoption judges and folds each row: a page this small keeps the primary's loop quick."""


def own_orphans(state: BrokerState) -> OrphanPage:
    """Return the oldest orphans that nobody has adopted, as many as a page takes."""
    rows = state.ledger.orphans(ORPHAN_BYTES_MAX)
    return OrphanPage(tuple(OrphanLine(r.sequence, r.hash.hex(), line_of(r)) for r in rows))


def mark_home(state: BrokerState, batch: Batch) -> None:
    """Let go of orphans that the primary adopted and whose adoption this journal has."""
    brought = state.replication.brought
    if not brought:
        return
    home = [line.hash for line in brought if state.ledger.holds_origin(Orphan.of(line).origin)]
    batch.adopted([bytes.fromhex(row_hash) for row_hash in home])
    if len(home) == len(brought):
        batch.after_commit.append(lambda: _ready_for_more(state))


def adopt_own(state: BrokerState, batch: Batch, now_ms: Millis) -> None:
    """Adopt this node's own orphans: it leads again, and nobody else can bring them home."""
    if not state.serves or not state.ledger.orphan_count():
        return
    page = own_orphans(state)
    try:
        orphans = [Orphan.of(line) for line in page.lines]
        facts = (*adopt_page(orphans, state.ledger), *rollover_reviews(state, orphans))
    except (MalformedMessageError, UnknownKindError) as error:
        # Set aside by another release: they wait in the archive, and the broker goes on.
        if state.refusals.passes("orphans", now_ms, SAID_EVERY_MS):
            log(EventName.ROSTER_REJECTED, detail=f"own orphans: {error.detail}")
        return
    for fact in facts:
        batch.append(fact, ACTOR)
    batch.adopted([bytes.fromhex(line.hash) for line in page.lines])
    log(EventName.MERGE_ADOPTED, source=state.host, rows=len(page.lines))
    batch.publish(BundleMoved(state.ledger.bundle_sequence()))


def rollover_reviews(state: BrokerState, orphans: Sequence[Orphan]) -> tuple[MergeConflict, ...]:
    """Return what a person should know of steps of a rollover that come home and do not fit."""
    ledger, row = state.ledger, state.rollover()

    def phase_of(pin: str) -> str | None:
        found = ledger.rollover_to(pin)
        return found.phase if found is not None else None

    fresh = [orphan for orphan in orphans if not ledger.holds_origin(orphan.origin)]
    found = conflicts(fresh, phase_of, row.pin if row is not None else "")
    return tuple(item for item in found if not ledger.review_listed(item.review_id))


def _ready_for_more(state: BrokerState) -> None:
    state.replication.brought, state.replication.bring_again_ms = (), 0
