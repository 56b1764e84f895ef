"""Bounds of one look: many members cost a page each second, and nothing is forgotten in between."""

from pathlib import Path
from typing import Any

from broker.clock import boottime_ms, wall_s
from broker.shell.books import Leaving
from broker.shell.lookout import KIND_MAX, NEWS_MEMBERS, PAGE, look
from broker.shell.outbox import tell
from broker.units import Millis
from broker.wire.facts import ActionRefused, CertificateServed
from tests.shell.mesh_room import Room
from tests.shell.notice_room import (
    DUE_MS,
    fail,
    look_around,
    notice_room,
    notices,
    pass_ms,
    renew,
    serve,
    told,
)
from tests.shell.scenes import fail_over

DAY_S = 86_400


def crowd(room: Room, count: int, **changes: Any) -> None:
    """Put members into the roster that look like nas, with these columns changed."""
    ledger = room["atlas"].office.ledger
    connection = ledger._connection
    nas = ledger.member_by_host("nas")
    assert nas is not None
    found = connection.execute("SELECT * FROM members WHERE member_id = ?", (nas.member_id,))
    names = [column[0] for column in found.description]
    row = dict(zip(names, found.fetchone(), strict=True))
    marks = ", ".join("?" * len(names))
    connection.execute("BEGIN")
    for number in range(count):
        one = {**row, **changes, "member_id": f"{number:032x}", "host": f"m{number}"}
        statement = f"INSERT INTO members VALUES ({marks})"  # noqa: S608 (marks are ours)
        connection.execute(statement, [one[name] for name in names])
    connection.execute("COMMIT")


def look_once(room: Room) -> None:
    """Do what one slow tick does about notices."""
    desk = room["atlas"].office.desk
    batch = desk.open_batch()
    room.clock.push(1_000)
    look(desk.state, batch, wall_s())
    tell(desk.state, batch, Millis(boottime_ms()), wall_s())
    desk.finish(batch, [])


def test_a_look_is_a_page_and_the_pages_go_round(home: Path) -> None:
    """The broker's loop serves renewals meanwhile; everybody has a turn all the same."""
    with notice_room(home, "nas") as room:
        now = wall_s()
        ends = {"renew_at": now - 9 * DAY_S, "not_after": now + DAY_S, "serving_until": now + DAY_S}
        crowd(room, 3 * PAGE, **ends)
        ledger = room["atlas"].office.ledger
        seen = []
        for _ in range(4):
            look_once(room)
            seen.append(ledger.trouble_count("member.expiring"))
        assert seen == [PAGE, 2 * PAGE, 3 * PAGE, 3 * PAGE]
        assert len(notices(room["atlas"])) == 1
        assert notices(room["atlas"])[0].summary.startswith(f"the certificates of {PAGE} hosts end")


def test_what_is_remembered_is_bounded_by_kind(home: Path) -> None:
    """A thousand dead hosts are one disaster; they must not hide a failed hook."""
    with notice_room(home, "nas") as room:
        now = wall_s()
        over = {"renew_at": now - 9 * DAY_S, "not_after": now - 5, "serving_until": now - 5}
        crowd(room, KIND_MAX + PAGE, **over)
        for _ in range(KIND_MAX // PAGE + 4):
            look_once(room)
        ledger = room["atlas"].office.ledger
        assert ledger.trouble_count("member.expired") == KIND_MAX
        ledger._connection.execute(
            "UPDATE members SET served = 'failed' WHERE member_id = ?", (f"{5:032x}",)
        )
        for _ in range(KIND_MAX // PAGE + 4):
            look_once(room)
        assert "hook.failed" in [notice.event for notice in notices(room["atlas"])]


def test_members_that_a_fork_took_away_are_forgotten(home: Path) -> None:
    """Their rows lie in the archive; nobody can mend them."""
    with notice_room(home, "nas") as room:
        crowd(room, 3, last_error="no route")
        ledger = room["atlas"].office.ledger
        ledger._connection.execute("UPDATE members SET renew_at = 1 WHERE host LIKE 'm%'")
        look_once(room)
        assert ledger.trouble_count("renewal.failed") == 3
        ledger._connection.execute("DELETE FROM members WHERE host LIKE 'm%'")
        look_once(room)
        assert ledger.trouble_count("renewal.failed") == 0


def test_a_failure_that_is_no_longer_in_the_roster_is_told_from_its_row(home: Path) -> None:
    """A beat may end the last error between the failure and the look; the renewal is due still."""
    with notice_room(home, "nas") as room:
        pass_ms(room, DUE_MS)
        room["nas"].down = True
        ledger = room["atlas"].office.ledger
        fail(room, "nas", "no address answered")
        ledger._connection.execute("UPDATE members SET last_error = '' WHERE host = 'nas'")
        look_once(room)
        assert [notice.detail for notice in notices(room["atlas"])] == ["no address answered"]


def test_rows_from_before_a_crash_are_looked_at_after_it(home: Path) -> None:
    """Nobody else leads to a member that is not due: its renewal was wanted by a person."""
    with notice_room(home, "nas") as room:
        look_around(room)
        room["nas"].down = True
        fail(room, "nas", "no address answered")
        room["atlas"].restart()
        room.run(8_000, until=lambda: room.serves(room["atlas"]))
        look_around(room)
        assert told(room["atlas"]) == [("renewal.failed", "nas")]


def test_an_old_promotion_is_not_told_in_a_new_reign(home: Path) -> None:
    """A new reign looks back over rows of earlier ones."""
    with notice_room(home, "birch", "nas") as room:
        room.nominate("birch")
        fail_over(room)
        look_around(room)
        birch = room["birch"]
        assert told(birch) == [("failover.promoted", "birch")]
        birch.office.ledger.set_term(9)
        state = birch.office.desk.state
        state.notices.read_to = None
        batch = birch.office.desk.open_batch()
        look(state, batch, wall_s())
        birch.office.desk.finish(batch, [])
        assert birch.office.ledger.untold_count("failover.promoted") == 0


def test_the_end_of_what_nobody_was_told_is_not_told(home: Path) -> None:
    """Good news about a trouble that nobody knew of only frightens."""
    notify = {"webhook": "https://h.example/x", "on": ["renewal.recovered"]}
    with notice_room(home, "nas", notify=notify) as room:
        pass_ms(room, DUE_MS)
        fail(room, "nas", "no address answered")
        look_around(room)
        renew(room, "nas", "atlas")
        look_around(room)
        assert told(room["atlas"]) == []


def test_many_failures_at_once_are_gone_into_over_several_looks(home: Path) -> None:
    """A thousand hooks fail with one broken package; the broker's loop has 20 ms for all of it."""
    with notice_room(home, "nas") as room:
        look_once(room)
        count = 3 * NEWS_MEMBERS
        crowd(room, count)
        desk = room["atlas"].office.desk
        batch = desk.open_batch()
        for number in range(count):
            batch.append(CertificateServed(f"{number:032x}", "aa", "failed", "hook web"), "test")
        desk.finish(batch, [])
        ledger, seen = room["atlas"].office.ledger, []
        for _ in range(4):
            look_once(room)
            seen.append(ledger.trouble_count("hook.failed"))
        assert seen == [NEWS_MEMBERS, 2 * NEWS_MEMBERS, count, count]


def test_a_row_that_takes_the_number_of_one_that_was_rolled_back_is_looked_at(home: Path) -> None:
    """A look reads rows of its own drain; on a full disk they vanish, and their numbers come."""
    with notice_room(home, "nas") as room:
        look_around(room)
        desk = room["atlas"].office.desk
        batch = desk.open_batch()
        batch.append(ActionRefused("set-policy", "mesh", "forbidden"), "ann")
        look(desk.state, batch, wall_s())
        batch.rollback()
        serve(room, "nas", "failed", "hook web exit 1")
        look_once(room)
        assert told(room["atlas"]) == [("hook.failed", "nas")]


def test_what_was_not_told_before_a_hand_over_that_fails_is_told_after_it(home: Path) -> None:
    """The successor did not come, so it is nobody else's to tell, and no new reign begins."""
    with notice_room(home, "nas") as room:
        look_once(room)
        serve(room, "nas", "failed", "hook web exit 1")
        desk = room["atlas"].office.desk
        batch = desk.open_batch()
        look(desk.state, batch, wall_s())
        desk.finish(batch, [])
        desk.state.leaving = Leaving("birch", 1, 1)
        look_once(room)
        assert told(room["atlas"]) == []
        desk.state.leaving = None
        look_once(room)
        assert told(room["atlas"]) == [("hook.failed", "nas")]
