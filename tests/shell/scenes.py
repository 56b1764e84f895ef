"""What several tests of failover do with a room."""

from collections.abc import Callable

from broker.wire.claims import Claim
from broker.wire.failover import (
    FailoverPlan,
    PlanFailover,
)
from broker.wire.ids import Service
from broker.wire.replica import (
    InstallPage,
    JournalAnswer,
    PageInstalled,
    PlanSync,
    ReadJournal,
    SyncPlan,
)
from tests.shell.mesh_room import Room

Make = Callable[..., Room]


def fail_over(room: Room, lost: str = "atlas", heir: str = "birch") -> None:
    """Take the primary away and wait for the heir."""
    room[lost].down = True
    room.run(12_000, until=lambda: room.serves(room[heir]))


def events(room: Room, host: str) -> list[str]:
    """Return the events of a node's journal."""
    return [row.event for row in room[host].office.ledger.audit(0, 1000)]


def claim_of(room: Room, host: str) -> Claim:
    """Return what a key holder would claim now."""
    plan = room[host].ask(Service.FAILOVER, PlanFailover(), FailoverPlan)
    assert plan.claim is not None
    return plan.claim


def page_for_birch(room: Room) -> bytes:
    """Return the page atlas has for birch now."""
    plan = room["birch"].ask(Service.ROSTER_SYNC, PlanSync(), SyncPlan)
    read = ReadJournal(room["birch"].peer, plan.locator)
    return room["atlas"].ask(Service.GATEWAY, read, JournalAnswer).page


def install_at_birch(room: Room, page: bytes, asked_after: str = "") -> PageInstalled:
    """Hand a page of atlas to birch's broker, as fetched for the present end of its journal."""
    asked = asked_after or room["birch"].office.ledger.head.hash
    return room["birch"].ask(Service.ROSTER_SYNC, InstallPage("atlas", page, asked), PageInstalled)
