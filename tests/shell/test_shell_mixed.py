"""Nodes of different releases in one mesh: what a newer primary writes, an older standby copies.

The newer primary is played by rows that this release could not have written.
"""

from typing import Any

import msgspec
import pytest

from broker.clock import wall_s
from broker.errors import UnknownKindError
from broker.ledger import folding, journal
from broker.ledger.journal import Stamp
from broker.wire.codec import decode_fact, encode_fact
from broker.wire.facts import EnrollmentClosed
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


def _write(room: Room, fields: dict[str, Any], *, known: bool) -> bytes:
    """Commit a row with this payload at the primary, as a newer release would; return its bytes."""
    ledger = room["atlas"].office.ledger
    payload = msgspec.msgpack.encode(fields)
    stamp = Stamp(ledger.term, wall_s(), "atlas", ledger.incarnation, "ann")
    row = journal.next_row(ledger.head, stamp, str(fields["kind"]), payload)
    ledger.begin()
    if known:
        folding.enter(ledger._connection, row, decode_fact(payload))
    else:
        journal.insert(ledger._connection, row)
    ledger._head = journal.head_of(row)
    ledger.commit()
    return payload


def test_a_field_of_a_newer_release_is_copied_bit_by_bit(room: Room) -> None:
    """The hash covers it, so dropping it would part the two journals for ever (row 55)."""
    room.run(1_000)
    fields = msgspec.msgpack.decode(encode_fact(EnrollmentClosed()))
    payload = _write(room, {**fields, "because": "of the weather"}, known=True)
    room.run(4_000, until=lambda: room.lag("birch") == 0)
    atlas, birch = room["atlas"].office.ledger, room["birch"].office.ledger
    assert birch.head == atlas.head
    assert birch.audit(-1, 1)[0].payload == payload
    assert birch.verify_chain()[2] is None
    assert birch.differing_projections() == ()


def test_a_fact_of_a_newer_release_is_refused_by_its_name_and_nothing_else_stops(
    room: Room,
) -> None:
    """What cannot be folded must not be passed over in silence (row 55).

    The standby stays what it is and where it is, says which node is to be updated, and goes on
    answering.
    """
    room.run(1_000)
    birch = room["birch"]
    before = birch.office.ledger.head
    _write(room, {"kind": "weather.changed", "to": "rain"}, known=False)
    plan = birch.ask(Service.ROSTER_SYNC, PlanSync(), SyncPlan)
    read = ReadJournal(birch.peer, plan.locator, 0)
    page = room["atlas"].ask(Service.GATEWAY, read, JournalAnswer).page
    for _ in range(3):
        with pytest.raises(UnknownKindError, match=r"weather\.changed, is of a newer") as caught:
            birch.ask(
                Service.ROSTER_SYNC,
                InstallPage("atlas", page, plan.locator[0].hash),
                PageInstalled,
            )
        assert "upgrade this node" in caught.value.hint
    room.run(3_000)
    assert birch.office.ledger.head == before
    assert (birch.role, room["atlas"].role) == ("standby", "primary")
    assert birch.office.ledger.verify_chain()[2] is None
