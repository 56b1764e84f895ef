"""The outbox under the notify worker: at least once for each target, never lost silently."""

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.core.outbox import NOTICES_MAX, PAUSE_MS
from broker.errors import ForbiddenError, LeaseLostError, NotFoundError
from broker.runtime.events import EventName
from broker.shell.outbox import post, teller_of
from broker.shell.ticks import Ticks
from broker.wire.control import Ack
from broker.wire.events import WorkAvailable
from broker.wire.ids import Service
from broker.wire.notice import ListNotices, NoticeLine, NoticesView, SendTestNotice
from broker.wire.work import CompleteWork, Decided, LeaseWork, WorkAnswer
from tests.shell.mesh_room import Node, Room
from tests.shell.notice_room import BOTH, DAY_MS, fail, finish, look_around, notice_room, take, told
from tests.workers.loop_desk import logged


def newest(node: Node) -> NoticeLine:
    """Return what became of the newest notice."""
    return node.ask(Service.CONSOLE, ListNotices(1), NoticesView).notices[0]


def ask_for_test(node: Node) -> None:
    """Want a test notice, as `certmesh notify test` does."""
    node.ask(Service.CONSOLE, SendTestNotice("ann"), NoticesView)


def nothing_to_do(node: Node, worker: bytes) -> int:
    """Return when the worker should ask again."""
    answer = node.office.send(worker, LeaseWork(), WorkAnswer)
    assert answer.lease is None
    return answer.next_in_ms


def test_each_target_is_a_stream_of_its_own(home: Path) -> None:
    """A target that hangs holds its own notices up and nobody else's."""
    with notice_room(home, notify=BOTH) as room:
        atlas = room["atlas"]
        ask_for_test(atlas)
        ask_for_test(atlas)
        worker = atlas.office.introduce(Service.NOTIFY)
        first, second = take(atlas, worker), take(atlas, worker)
        assert first is not None
        assert second is not None
        assert (first[1].waiting, second[1].waiting) == (("webhook",), ("ntfy",))
        assert first[1].notice == second[1].notice, "oldest first"
        assert nothing_to_do(atlas, worker)
        finish(atlas, worker, first[0], "webhook")
        third = take(atlas, worker)
        assert third is not None
        assert third[1].waiting == ("webhook",)
        assert third[1].notice != first[1].notice
        assert take(atlas, worker) is None


def test_a_notice_is_announced_to_the_worker(home: Path) -> None:
    """Seconds count: nobody waits for the next round."""
    with notice_room(home) as room:
        room["atlas"].office.events.clear()
        ask_for_test(room["atlas"])
        assert WorkAvailable(Service.NOTIFY) in room["atlas"].office.events


def test_what_was_taken_stays_taken_over_a_restart(home: Path) -> None:
    """Killed between the two targets: only the second one is told after it."""
    with notice_room(home, notify=BOTH) as room:
        atlas = room["atlas"]
        ask_for_test(atlas)
        worker = atlas.office.introduce(Service.NOTIFY)
        lease, _ = _taken(atlas, worker)
        finish(atlas, worker, lease, "webhook")
        atlas.restart()
        worker = atlas.office.introduce(Service.NOTIFY)
        lease, item = _taken(atlas, worker)
        assert item.waiting == ("ntfy",)
        assert take(atlas, worker) is None
        finish(atlas, worker, lease, "ntfy")
        assert newest(atlas).state == "sent"


def test_a_lease_that_was_never_completed_is_told_again(home: Path) -> None:
    """Killed between lease and completion: at least once."""
    with notice_room(home) as room:
        atlas = room["atlas"]
        ask_for_test(atlas)
        worker = atlas.office.introduce(Service.NOTIFY)
        lease, item = _taken(atlas, worker)
        atlas.restart()
        worker = atlas.office.introduce(Service.NOTIFY)
        with pytest.raises(LeaseLostError):
            finish(atlas, worker, lease, "webhook")
        assert _taken(atlas, worker)[1].notice == item.notice


def test_a_target_that_fails_is_tried_less_and_less_often(home: Path) -> None:
    """30 s, a minute, two, ... an hour; a notice that came later does not wait that long."""
    with notice_room(home) as room:
        atlas = room["atlas"]
        ask_for_test(atlas)
        waits = []
        for _ in range(4):
            worker = atlas.office.introduce(Service.NOTIFY)
            lease, _ = _taken(atlas, worker)
            finish(atlas, worker, lease, detail="answered status 500")
            waits.append(_wait_for_work(room, atlas))
        assert waits == [30, 60, 120, 240]
        assert newest(atlas).errors == ("answered status 500",)
        assert newest(atlas).attempts == 4
        worker = atlas.office.introduce(Service.NOTIFY)
        lease, item = _taken(atlas, worker)
        finish(atlas, worker, lease, detail="answered status 500")
        fail_id = item.notice.notice_id
        ask_for_test(atlas)
        room.clock.push(30_000)
        worker = atlas.office.introduce(Service.NOTIFY)
        assert _taken(atlas, worker)[1].notice.notice_id != fail_id


def test_a_target_that_failed_is_left_alone_with_everything_for_a_moment(home: Path) -> None:
    """A dead server is not called once for each of fifty notices."""
    with notice_room(home, notify=BOTH) as room:
        atlas = room["atlas"]
        ask_for_test(atlas)
        ask_for_test(atlas)
        worker = atlas.office.introduce(Service.NOTIFY)
        lease, item = _taken(atlas, worker)
        assert item.waiting == ("webhook",)
        finish(atlas, worker, lease, detail="refused the connection")
        assert _taken(atlas, worker)[1].waiting == ("ntfy",)
        assert take(atlas, worker) is None
        room.clock.push(PAUSE_MS)
        assert _taken(atlas, worker)[1].waiting == ("webhook",)


def test_a_target_is_taken_at_its_word_about_when_to_come_again(home: Path) -> None:
    """429 with Retry-After: earlier calls only make it worse."""
    with notice_room(home) as room:
        atlas = room["atlas"]
        ask_for_test(atlas)
        worker = atlas.office.introduce(Service.NOTIFY)
        lease, _ = _taken(atlas, worker)
        finish(atlas, worker, lease, detail="answered status 429", retry_after_ms=300_000)
        assert _wait_for_work(room, atlas) == 330


def test_after_a_day_it_is_given_up_and_a_log_line_says_so(home: Path, caplog: Any) -> None:
    """Nothing is lost silently; nothing is tried for ever."""
    caplog.set_level(logging.INFO, logger="certmesh")
    with notice_room(home) as room:
        atlas = room["atlas"]
        ask_for_test(atlas)
        room.clock.push(2 * DAY_MS)
        _tidy(room)
        assert newest(atlas).state == "waiting", "it was never tried"
        worker = atlas.office.introduce(Service.NOTIFY)
        lease, _ = _taken(atlas, worker)
        finish(atlas, worker, lease, detail="answered status 500")
        room.clock.push(60_000)
        _tidy(room)
        assert newest(atlas).state == "dropped"
        (line,) = logged(caplog, EventName.NOTICE_DROPPED)
        assert (line["kind"], line["last_error"]) == ("notify.test", "webhook: answered status 500")


def test_the_outbox_is_bounded_and_gives_up_what_was_sent_first(home: Path, caplog: Any) -> None:
    """A target that is dead for a day must not fill the disk."""
    caplog.set_level(logging.INFO, logger="certmesh")
    with notice_room(home) as room:
        atlas = room["atlas"]
        ask_for_test(atlas)
        worker = atlas.office.introduce(Service.NOTIFY)
        lease, item = _taken(atlas, worker)
        finish(atlas, worker, lease, "webhook")
        desk = atlas.office.desk
        batch = desk.open_batch()
        for number in range(NOTICES_MAX):
            notice = teller_of(desk.state, item.notice.at).test(f"{number:032x}", "ann")
            post(desk.state, batch, notice)
        desk.finish(batch, [])
        assert desk.state.ledger.parcel(item.notice.notice_id) is None
        assert len(desk.state.ledger.parcels(1000)) == NOTICES_MAX
        assert logged(caplog, EventName.NOTICE_DROPPED) == []
        ask_for_test(atlas)
        (line,) = logged(caplog, EventName.NOTICE_DROPPED)
        assert line["reason"] == "too many wait"


def test_a_target_that_left_the_settings_is_waited_for_no_more(home: Path) -> None:
    """Else its notices would be retried by nobody for ever."""
    with notice_room(home, notify=BOTH) as room:
        atlas = room["atlas"]
        ask_for_test(atlas)
        worker = atlas.office.introduce(Service.NOTIFY)
        lease, _ = _taken(atlas, worker)
        finish(atlas, worker, lease, "webhook")
        atlas.office.settings = _with(atlas, webhook=BOTH["webhook"])
        atlas.restart()
        atlas.ticks = Ticks(atlas.office.desk.state)
        _tidy(room)
        assert (newest(atlas).state, newest(atlas).waiting) == ("dropped", ())


def test_a_test_needs_somebody_to_tell(home: Path) -> None:
    """The refusal says what to set."""
    with (
        notice_room(home, notify={}) as room,
        pytest.raises(NotFoundError, match="names nobody") as found,
    ):
        ask_for_test(room["atlas"])
    assert "notify.webhook" in found.value.hint


def test_a_test_is_tried_at_once_whatever_failed_before(home: Path) -> None:
    """Whoever mended the address wants to know now."""
    with notice_room(home) as room:
        atlas = room["atlas"]
        ask_for_test(atlas)
        worker = atlas.office.introduce(Service.NOTIFY)
        lease, _ = _taken(atlas, worker)
        finish(atlas, worker, lease, detail="refused the connection")
        assert take(atlas, worker) is None
        ask_for_test(atlas)
        assert _taken(atlas, worker)[1].notice.notice_id == newest(atlas).notice.notice_id


def test_no_other_outcome_completes_a_notice(home: Path) -> None:
    """A worker that is confused must not end what it did not do."""
    with notice_room(home) as room:
        atlas = room["atlas"]
        ask_for_test(atlas)
        worker = atlas.office.introduce(Service.NOTIFY)
        lease, _ = _taken(atlas, worker)
        wrong = CompleteWork(lease.lease_id, Decided(True, "ann", ""))
        with pytest.raises(ForbiddenError):
            atlas.office.send(worker, wrong, Ack)


def test_a_worker_gets_only_its_own_kind_of_work(home: Path) -> None:
    """A renewal worker is never asked to talk to the internet."""
    with notice_room(home, "nas") as room:
        room["nas"].down = True
        fail(room, "nas", "no route")
        look_around(room)
        assert told(room["atlas"]) == [("renewal.failed", "nas")]
        answer = room["atlas"].ask(Service.APPROVAL, LeaseWork(), WorkAnswer)
        assert answer.lease is None


def _taken(node: Node, worker: bytes) -> tuple[Any, Any]:
    found = take(node, worker)
    assert found is not None
    return found


def _wait_for_work(room: Room, node: Node) -> int:
    """Return after how many seconds there is something to try, coming when the broker says."""
    waited_ms = 0
    while waited_ms < DAY_MS:
        worker = node.office.introduce(Service.NOTIFY)
        answer = node.office.send(worker, LeaseWork(), WorkAnswer)
        state = node.office.desk.state
        for grant in state.leases.lost_with(worker):
            state.leases.drop(grant)
        if answer.lease is not None:
            return waited_ms // 1000
        room.clock.push(answer.next_in_ms)
        waited_ms += answer.next_in_ms
    raise AssertionError(f"nothing after {waited_ms} ms")


def _tidy(room: Room) -> None:
    for _ in range(12):
        look_around(room)


def _with(node: Node, **notify: str) -> Any:
    settings = node.office.settings
    kept = {**dict.fromkeys(("webhook", "ntfy"), ""), **notify}
    return msgspec.structs.replace(
        settings, notify=msgspec.structs.replace(settings.notify, **kept)
    )
