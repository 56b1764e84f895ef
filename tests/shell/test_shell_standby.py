"""Standby life and replication between real brokers; no sockets, pushed time."""

import msgspec
import pytest

from broker.clock import wall_s
from broker.core.paging import pack_page, unpack_page
from broker.errors import (
    ClaimRejectedError,
    ConflictError,
    ForkedError,
    MalformedMessageError,
    NotAMemberError,
    NotPrimaryError,
    RevokedError,
)
from broker.wire.claims import Gossip
from broker.wire.control import Ack
from broker.wire.facts import EnrollmentClosed
from broker.wire.failover import (
    Hello,
    HelloAnswer,
)
from broker.wire.ids import Service
from broker.wire.replica import (
    AcceptKey,
    InstallPage,
    JournalAnswer,
    KeyPackage,
    PageInstalled,
    PlanSync,
    ReadJournal,
    ReportReady,
    SyncPlan,
)
from broker.wire.roster import (
    RevocationAnswer,
    RevokeMember,
)
from broker.wire.standby import (
    ListStandbys,
    NominateStandby,
    RemoveStandby,
    StandbysView,
)
from tests.shell.mesh_room import Room
from tests.shell.scenes import claim_of, install_at_birch, page_for_birch


def test_a_nominated_member_becomes_a_standby_in_step(room: Room) -> None:
    """It has the key, the role and the whole journal, row by row the same."""
    room.run(500)
    birch = room["birch"].office
    assert room["birch"].role == "standby"
    assert birch.ledger.head == room["atlas"].office.ledger.head
    assert birch.ledger.differing_projections() == ()
    assert birch.desk.state.keys.state == "unlocked"
    view = room["atlas"].ask(Service.CONSOLE, ListStandbys(), StandbysView)
    lines = {line.host: (line.state, line.lag) for line in view.lines}
    assert lines == {"atlas": ("primary", 0), "birch": ("ready", 0)}


def test_a_standby_keeps_its_role_over_a_sync_and_a_restart(room: Room) -> None:
    """Defect 3: the role was written only on the standby, and the first sync wiped it."""
    room.run(2_000)
    room["birch"].restart()
    room.run(2_000)
    assert room["birch"].role == "standby"
    holders = {row.host: row.role for row in room["atlas"].office.ledger.key_holders()}
    assert holders == {"atlas": "primary", "birch": "standby"}


def test_only_a_nominated_member_gets_the_key(room: Room) -> None:
    """Defect 38: any member could fetch the CA key."""
    ask = AcceptKey(room["cedar"].peer, bytes(31) + b"\x09")
    with pytest.raises(ConflictError, match="not nominated"):
        room["atlas"].ask(Service.GATEWAY, ask, KeyPackage)


def test_only_a_nominated_member_becomes_a_standby_by_saying_so(room: Room) -> None:
    """The roster is the primary's to write: a word of the member alone admits nobody."""
    with pytest.raises(ConflictError, match="not nominated"):
        room["atlas"].ask(Service.GATEWAY, ReportReady(room["cedar"].peer), Ack)
    assert [row.host for row in room["atlas"].office.ledger.key_holders()] == ["atlas", "birch"]


def test_a_revoked_member_gets_no_key_though_it_was_nominated(room: Room) -> None:
    """Defect 38: a revoked member could still fetch the CA key."""
    atlas = room["atlas"]
    atlas.ask(Service.CONSOLE, NominateStandby("cedar", "ann"), Ack)
    atlas.ask(Service.CONSOLE, RevokeMember("cedar", "lost", "ann"), RevocationAnswer)
    with pytest.raises(RevokedError):
        atlas.ask(Service.GATEWAY, AcceptKey(room["cedar"].peer, bytes(32)), KeyPackage)


def test_a_removed_standby_loses_role_and_key(room: Room) -> None:
    """The role comes from the roster; the key leaves with it."""
    room["atlas"].ask(Service.CONSOLE, RemoveStandby("birch", "ann"), Ack)
    room.run(3_000, until=lambda: room["birch"].role == "member")
    assert room["birch"].office.desk.state.keys.state == "absent"
    assert not room["birch"].office.paths.authority.exists()
    assert not room["birch"].office.paths.credential.exists()


def test_a_member_never_writes_rows_of_its_own(room: Room) -> None:
    """A journal has one writer; a refusal on a standby is a line in its log."""
    before = room["birch"].office.ledger.head
    stranger = msgspec.structs.replace(room["cedar"].peer, serial="ab", host="mallory")
    with pytest.raises(NotAMemberError):
        room["birch"].ask(
            Service.GATEWAY, Hello(stranger, claim_of(room, "birch"), Gossip()), HelloAnswer
        )
    assert room["birch"].office.ledger.head == before


def test_standbys_and_members_are_told_who_may_not_read_the_journal(room: Room) -> None:
    """The whole roster is for key holders."""
    with pytest.raises(NotAMemberError, match="key holder"):
        room["atlas"].ask(Service.GATEWAY, ReadJournal(room["cedar"].peer, ()), JournalAnswer)


def test_a_change_reaches_a_waiting_standby_with_the_commit(room: Room) -> None:
    """Push: the answer to the long poll leaves with the reply to the change."""
    atlas, birch = room["atlas"].office, room["birch"].office
    plan = birch.ask(Service.ROSTER_SYNC, PlanSync(), SyncPlan)
    identity = atlas.introduce(Service.GATEWAY)
    poll = ReadJournal(room["birch"].peer, plan.locator, 2_000)
    assert atlas.turn([(identity, poll, b"p" * 16)]) == []
    console = atlas.introduce(Service.CONSOLE)
    revoke = RevokeMember("cedar", "lost", "ann")
    replies = [entry.reply for entry in atlas.turn([(console, revoke, b"r" * 16)])]
    pages = [reply.page for reply in replies if isinstance(reply, JournalAnswer)]
    assert len(pages) == 1
    done = birch.ask(
        Service.ROSTER_SYNC, InstallPage("atlas", pages[0], plan.locator[0].hash), PageInstalled
    )
    assert done.rows >= 1
    assert birch.ledger.head == atlas.ledger.head


def test_a_page_the_ca_did_not_sign_is_refused(room: Room) -> None:
    """Whoever brings it: only the issuing key of this mesh speaks for rows."""
    page = unpack_page(page_for_birch(room))
    head = page.head
    forged = msgspec.structs.replace(
        page, head=msgspec.structs.replace(head, signature=head.signature[::-1])
    )
    with pytest.raises(ClaimRejectedError):
        install_at_birch(room, pack_page(forged))


def test_a_page_with_a_changed_row_is_refused(room: Room) -> None:
    """The signed head names the hash of the last row, and so of all before it."""
    room["atlas"].ask(Service.CONSOLE, RevokeMember("cedar", "lost", "ann"), RevocationAnswer)
    page = unpack_page(page_for_birch(room))
    line = msgspec.structs.replace(page.lines[0], actor="mallory")
    with pytest.raises(MalformedMessageError, match="another row"):
        install_at_birch(
            room, pack_page(msgspec.structs.replace(page, lines=(line, *page.lines[1:])))
        )


def test_a_standby_takes_pages_only_from_the_primary_it_follows(room: Room) -> None:
    """Defect 1: a standby synced from itself."""
    page = page_for_birch(room)
    for source in ("birch", "cedar"):
        with pytest.raises(NotPrimaryError, match="not whom"):
            room["birch"].ask(Service.ROSTER_SYNC, InstallPage(source, page, ""), PageInstalled)
    plan = room["birch"].ask(Service.ROSTER_SYNC, PlanSync(), SyncPlan)
    assert plan.source is not None
    assert plan.source.host == "atlas"


def test_two_contents_in_one_term_are_an_alarm_and_change_nothing(room: Room) -> None:
    """Same number, another hash, no later term: nobody may guess which one is true."""
    birch = room["birch"].office
    birch.ledger.begin()
    birch.ledger.append(EnrollmentClosed(), actor="mallory", now=wall_s())
    birch.ledger.commit()
    room["atlas"].ask(Service.CONSOLE, RevokeMember("cedar", "lost", "ann"), RevocationAnswer)
    page = page_for_birch(room)
    before = birch.ledger.head
    with pytest.raises(ForkedError, match="two contents"):
        install_at_birch(room, page)
    assert birch.ledger.head == before


def test_a_late_copy_of_a_page_changes_nothing(room: Room) -> None:
    """It was asked for at another end of this journal; taken for a deep fork it would cut rows.

    (row 36)
    """
    page, asked = page_for_birch(room), room["birch"].office.ledger.head.hash
    room["atlas"].ask(Service.CONSOLE, RevokeMember("cedar", "lost", "ann"), RevocationAnswer)
    room.step()
    before = room["birch"].office.ledger.head
    assert install_at_birch(room, page, asked).rows == 0
    assert room["birch"].office.ledger.head == before


def test_a_revocation_says_how_many_standbys_have_it(room: Room) -> None:
    """Durable on one of one: the promise about a lost primary holds for it."""
    answer = room["atlas"].ask(
        Service.CONSOLE, RevokeMember("cedar", "lost", "ann"), RevocationAnswer
    )
    assert (answer.standbys, answer.standbys_durable) == (1, 0)
    room.step()
    line = room["atlas"].ask(Service.CONSOLE, ListStandbys(), StandbysView).lines[1]
    assert line.lag == 0


def test_only_what_a_standby_has_is_shown(room: Room) -> None:
    """A head that only one disk knows would stop every standby when the disk is gone."""
    atlas = room["atlas"].office.desk.state
    room["birch"].down = True
    room["atlas"].ask(Service.CONSOLE, RevokeMember("cedar", "lost", "ann"), RevocationAnswer)
    revoked = atlas.ledger.head.sequence
    room.step()
    assert atlas.gossip.head_version.sequence < revoked
    room.run(8_000)
    assert atlas.gossip.head_version.sequence >= revoked
