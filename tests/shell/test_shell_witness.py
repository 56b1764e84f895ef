"""Heads witnessed by members: a journal that was put back from an old copy is found out."""

import msgspec

from broker.clock import wall_s
from broker.shell.witness import newest_head
from broker.wire.audit import AuditVerdict, VerifyAudit
from broker.wire.claims import Head
from broker.wire.enrollment import EnrollmentView, SetEnrollment
from broker.wire.ids import Service
from broker.wire.node import GetStatus, StatusView
from broker.wire.roster import HeartbeatAnswer
from tests.shell.mesh_room import Room
from tests.shell.scenes import Make, events
from tests.shell.settled import settled
from tests.shell.test_shell_revocation import a_beat


def write(room: Room, count: int) -> None:
    """Let the primary write some rows."""
    for number in range(count):
        is_open = bool(number % 2)
        room.primary().ask(Service.CONSOLE, SetEnrollment(is_open, "ann"), EnrollmentView)


def verdict(room: Room) -> AuditVerdict:
    """Verify the primary's journal."""
    return settled(room.primary().office, VerifyAudit(), AuditVerdict)


def test_members_vouch_for_the_journal_they_follow(make: Make) -> None:
    """`audit verify` says how many: without any, an exchanged file would not be noticed."""
    room = make("birch", "cedar")
    write(room, 3)
    room.run(3_000)
    found = verdict(room)
    assert (found.first_bad, found.witnesses, found.contradicted_by) == (None, 2, ())


def test_a_journal_rolled_back_to_an_older_copy_is_contradicted_by_its_members(make: Make) -> None:
    """The chain of an old copy holds perfectly; only others remember that there was more.

    (row 53, P16)
    """
    room = make("birch", "cedar")
    room.run(2_000)
    atlas = room["atlas"]
    ledger = atlas.office.paths.ledger
    kept: list[bytes] = []
    atlas.restart(lambda: kept.append(ledger.read_bytes()))
    write(room, 6)
    room.run(3_000)
    remembered = newest_head(room["birch"].office.desk.state)
    assert remembered is not None

    atlas.restart(lambda: ledger.write_bytes(kept[0]))
    write(room, 2)
    room.run(26_000)

    assert "audit.broken" in events(room, "atlas")
    found = verdict(room)
    assert found.first_bad is None
    assert found.contradicted_by == ("birch", "cedar")
    warnings = room["atlas"].ask(Service.CONSOLE, GetStatus(), StatusView).warnings
    assert any("birch remembers row" in text for text in warnings)
    assert events(room, "atlas").count("audit.broken") == 2

    atlas.restart()
    assert verdict(room).contradicted_by == ("birch", "cedar")


def test_a_member_remembers_the_newest_head_over_its_own_restart(make: Make) -> None:
    """Whoever can make a member forget can roll the journal back unseen."""
    room = make("birch")
    room.run(2_000)
    write(room, 3)
    room.run(65_000)
    state = room["birch"].office.desk.state
    before = newest_head(state)
    assert before is not None
    assert state.follow.bundle is not None
    assert before.sequence > state.follow.bundle.head.sequence
    room["atlas"].down = True
    room["birch"].restart()
    assert newest_head(room["birch"].office.desk.state) == before


def test_a_row_on_its_way_home_is_no_contradiction(make: Make) -> None:
    """Orphans of a former primary are adopted soon; until then nobody is accused."""
    room = make("birch")
    room.run(2_000)
    state = room["atlas"].office.desk.state
    known = Head(1, 2, state.ledger.hash_at(2), "atlas", wall_s())
    beat = msgspec.structs.replace(a_beat(room, "birch"), witness=known)
    room["atlas"].ask(Service.GATEWAY, beat, HeartbeatAnswer)
    strange = msgspec.structs.replace(known, hash="ab" * 32)
    beat = msgspec.structs.replace(beat, witness=strange)
    room["atlas"].ask(Service.GATEWAY, beat, HeartbeatAnswer)
    room.run(5_000)
    assert "audit.broken" not in events(room, "atlas")
    room.run(10_000)
    assert events(room, "atlas").count("audit.broken") == 1
