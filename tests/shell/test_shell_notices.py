"""Which troubles of a mesh become notices: real brokers, real ledgers, pushed time."""

import logging
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from broker.clock import wall_s
from broker.core.telling import SINGLES_MAX
from broker.runtime.events import EventName
from broker.shell.ticks import Ticks
from broker.wire.approval import ApprovalView, DecideApproval
from broker.wire.control import Ack
from broker.wire.enrollment import JoinAnswer
from broker.wire.facts import RenewalFailed
from broker.wire.ids import Service
from broker.wire.renewal import NoteOwnCertificate
from broker.wire.roster import RevocationAnswer, RevokeMember
from tests.shell.mesh_room import NOBODY, Node, Room, pushed_clock
from tests.shell.notice_room import (
    DAY_MS,
    DUE_MS,
    WEBHOOK,
    fail,
    look_around,
    notice_room,
    notices,
    pass_ms,
    renew,
    serve,
    told,
)
from tests.shell.office import Office, join_request, make_csr
from tests.shell.scenes import fail_over
from tests.workers.loop_desk import logged


def test_defect_16_the_first_failure_is_told_and_its_end(home: Path) -> None:
    """A renewal that fails silently is the commonest complaint about every CA."""
    with notice_room(home, "nas") as room:
        pass_ms(room, DUE_MS)
        fail(room, "nas", "no address answered")
        look_around(room)
        fail(room, "nas", "refused the connection")
        look_around(room)
        assert told(room["atlas"]) == [("renewal.failed", "nas")]
        assert notices(room["atlas"])[0].detail == "no address answered"
        renew(room, "nas", "atlas")
        look_around(room)
        assert told(room["atlas"])[1:] == [("renewal.recovered", "nas")]
        pass_ms(room, DUE_MS)
        fail(room, "nas", "no address answered")
        look_around(room)
        assert told(room["atlas"])[2:] == [("renewal.failed", "nas")]


def test_a_host_that_beats_on_with_its_old_certificate_has_not_recovered(home: Path) -> None:
    """It says that it serves well what it has, and so ends its last error; nothing is mended."""
    with notice_room(home, "nas") as room:
        pass_ms(room, DUE_MS)
        fail(room, "nas", "no address answered")
        serve(room, "nas", "installed")
        look_around(room)
        serve(room, "nas", "served")
        look_around(room)
        assert told(room["atlas"]) == [("renewal.failed", "nas")]


def test_a_failed_hook_and_a_stale_service_have_names_of_their_own(home: Path) -> None:
    """They are mended in different places."""
    with notice_room(home, "nas", "printer") as room:
        room["nas"].down = room["printer"].down = True
        serve(room, "nas", "failed", "hook nginx: exit 1")
        serve(room, "printer", "stale", "port 443 serves another serial")
        look_around(room)
        assert sorted(told(room["atlas"])) == [
            ("hook.failed", "nas"),
            ("served.mismatch", "printer"),
        ]


def test_a_restart_neither_repeats_nor_forgets(home: Path) -> None:
    """Kill -9 between the failure and the look, and after it."""
    with notice_room(home, "nas") as room:
        pass_ms(room, DUE_MS)
        fail(room, "nas", "no address answered")
        room["atlas"].restart()
        room.run(8_000, until=lambda: room.serves(room["atlas"]))
        look_around(room)
        assert told(room["atlas"]) == [("renewal.failed", "nas")]
        room["atlas"].restart()
        room.run(8_000, until=lambda: room.serves(room["atlas"]))
        look_around(room)
        assert told(room["atlas"]) == [("renewal.failed", "nas")]
        renew(room, "nas")
        look_around(room)
        assert told(room["atlas"])[1:] == [("renewal.recovered", "nas")]


@pytest.mark.parametrize(
    ("lifetime", "after_ms", "steps"),
    [
        ("30d", (20 * DAY_MS, 3 * DAY_MS, 6 * DAY_MS, DAY_MS), (0, 1, 2, 3)),
        ("90d", (61 * DAY_MS, 15 * DAY_MS, 7 * DAY_MS, 6 * DAY_MS, DAY_MS), (0, 1, 2, 3, 4)),
        ("5m", (205_000, 40_000, 25_000, 30_000), (0, 1, 2, 3)),
    ],
)
def test_the_steps_before_the_end_are_told_once_each(
    home: Path, lifetime: str, after_ms: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    """Days for those who have days, halves for those who have minutes; then: expired, once."""
    policy = {"leaf_lifetime": lifetime}
    with notice_room(home, "nas", policy=policy, renewal={"jitter": 0.0}) as room:
        room["nas"].down = True
        mine: list[str] = []
        for ms, count in zip(after_ms, steps, strict=True):
            pass_ms(room, ms)
            look_around(room)
            mine = [event for event, host in told(room["atlas"]) if host == "nas"]
            assert len(mine) == count, (ms, mine)
        assert mine[-1] == "member.expired"
        assert set(mine[:-1]) == {"member.expiring"}


def test_who_joins_or_is_put_out_ends_it_without_a_word(home: Path) -> None:
    """A revoked member is not well, and nobody has to mend it."""
    with notice_room(home, "nas") as room:
        pass_ms(room, DUE_MS)
        fail(room, "nas", "no address answered")
        look_around(room)
        room["atlas"].ask(Service.CONSOLE, RevokeMember("nas", "gone", "ann"), RevocationAnswer)
        look_around(room)
        assert told(room["atlas"]) == [("renewal.failed", "nas")]
        ledger = room["atlas"].office.ledger
        assert ledger.troubles_page(("", ""), 10) == []


def test_a_flood_is_one_notice(home: Path) -> None:
    """A dead switch takes a dozen hosts away; a dozen mails hide the thirteenth thing."""
    with notice_room(home) as room:
        desk = room["atlas"].office.desk
        for number in range(12):
            room.join(f"h{number}", 10 + number)
        for node in room.nodes.values():
            node.down = node.host != "atlas"
        batch = desk.open_batch()
        for number in range(12):
            member = desk.state.ledger.member_by_host(f"h{number}")
            assert member is not None
            batch.append(RenewalFailed(member.member_id, "no route to host"), "test")
        desk.finish(batch, [])
        look_around(room)
        (notice,) = notices(room["atlas"])
        assert notice.summary == "renewing 12 hosts fails"
        assert "h0, h1" in notice.detail
        assert notice.detail.endswith("such as: no route to host")
        fail(room, "h0", "still")
        pass_ms(room, 60_000)
        assert len(notices(room["atlas"])) == 1


def test_nobody_configured_means_no_outbox_and_still_a_log_line(home: Path, caplog: Any) -> None:
    """The log is read by somebody; it says each step once."""
    caplog.set_level(logging.INFO, logger="certmesh")
    with notice_room(home, "nas", notify={}) as room:
        room["nas"].down = True
        pass_ms(room, 24 * DAY_MS)
        look_around(room)
        look_around(room)
        assert notices(room["atlas"]) == []
        lines = [line["host"] for line in logged(caplog, EventName.CERTIFICATE_EXPIRING)]
        assert sorted(lines) == ["atlas", "nas"]


def test_what_the_settings_do_not_choose_is_not_told(home: Path) -> None:
    """`on` is a choice."""
    with notice_room(
        home, "nas", notify={"webhook": "https://h.example/x", "on": ["hook.failed"]}
    ) as room:
        pass_ms(room, DUE_MS)
        room["nas"].down = True
        fail(room, "nas", "no address answered")
        serve(room, "nas", "failed", "exit 1")
        look_around(room)
        room["nas"].down = False
        renew(room, "nas", "atlas")
        look_around(room)
        assert told(room["atlas"]) == [("hook.failed", "nas")]


def test_a_member_tells_of_itself_when_its_own_settings_say_so(home: Path) -> None:
    """The CA may be the part that is broken."""
    with notice_room(home, "nas") as room:
        state = room["nas"].office.desk.state
        state.own_failure = "no address answered"
        look_around(room)
        assert told(room["nas"]) == [("renewal.failed", "nas")]
        assert told(room["atlas"]) == []
        peer = room["nas"].peer
        note = NoteOwnCertificate(
            True, peer.serial, wall_s(), peer.not_after, "failed", "hook nginx: exit 1"
        )
        state.own_failure = ""
        room["nas"].ask(Service.RENEWAL, note, Ack)
        look_around(room)
        assert told(room["nas"])[1:] == [("hook.failed", "nas")]


def test_a_member_that_restarts_while_it_fails_is_not_well(home: Path) -> None:
    """Its broker forgot why; the certificate is as late as before."""
    with notice_room(home, "nas") as room:
        room["atlas"].down = True
        state = room["nas"].office.desk.state
        started = state.own.not_before
        assert started is not None
        room.clock.push(22 * DAY_MS)
        state.own_failure = "no address answered"
        look_around(room)
        room["nas"].restart()
        peer = room["nas"].peer
        note = NoteOwnCertificate(True, peer.serial, started, peer.not_after, "installed", "")
        room["nas"].ask(Service.RENEWAL, note, Ack)
        look_around(room)
        assert told(room["nas"]) == [("renewal.failed", "nas")]


def test_a_promotion_is_told_by_whoever_was_promoted(home: Path) -> None:
    """And what the one before it may not have got out is told again."""
    with notice_room(home, "birch", "nas") as room:
        room.nominate("birch")
        look_around(room)
        assert told(room["birch"]) == []
        pass_ms(room, DUE_MS)
        renew(room, "atlas", "birch")
        fail(room, "nas", "no address answered")
        room.run(2_000, until=lambda: room.lag("birch") == 0)
        fail_over(room)
        room.run(3_000)
        assert sorted(told(room["birch"])) == [
            ("failover.promoted", "birch"),
            ("renewal.failed", "nas"),
        ]
        room["birch"].restart()
        room.run(12_000, until=lambda: room.serves(room["birch"]))
        room.run(3_000)
        assert len(told(room["birch"])) == 2


def test_whoever_leads_no_more_tells_of_nobody_else(home: Path) -> None:
    """Two nodes that tell the same thing a week apart are worse than one."""
    with notice_room(home, "birch", "nas", notify={}) as room:
        room.nominate("birch")
        pass_ms(room, DUE_MS)
        renew(room, "atlas", "birch")
        fail(room, "nas", "no address answered")
        look_around(room)
        ledger = room["atlas"].office.ledger
        assert ledger.untold_count("renewal.failed") == 1, "nobody was configured"
        fail_over(room)
        room["atlas"].down = False
        room.run(12_000, until=lambda: room["atlas"].role == "standby")
        look_around(room)
        assert ledger.untold_count("renewal.failed") == 0


def test_a_join_that_waits_is_told_once_and_is_over_when_decided(home: Path) -> None:
    """A program that decides within a moment needs nobody."""
    with pushed_clock() as clock:
        office = Office.create(home, approval=True, notify=WEBHOOK)
        atlas = Node("atlas", office, NOBODY, Ticks(office.desk.state))
        room = Room(home, clock, {"atlas": atlas})
        _ask_to_join(office, "nas")
        atlas.tick()
        assert told(atlas) == []
        look_around(room)
        look_around(room)
        assert told(atlas) == [("approval.pending", "nas")]
        (row,) = office.ledger.approvals("pending", 5)
        assert not set(row.words) & set(notices(atlas)[0].detail.split())
        deny = DecideApproval(row.approval_id, False, "ann", "")
        office.ask(Service.CONSOLE, deny, ApprovalView)
        look_around(room)
        assert office.ledger.troubles_page(("", ""), 5) == []
        for number in range(7):
            for _ in range(31):
                clock.push(1_000)
                atlas.tick()
            _ask_to_join(office, f"h{number}")
        look_around(room)
        assert len(told(atlas)) == SINGLES_MAX + 1
        office.ledger.close()


def _ask_to_join(office: Office, host: str) -> None:
    totp = TOTP(office.desk.state.keys.totp_secret, 6, hashes.SHA1(), 30)
    code = totp.generate(wall_s()).decode()
    office.ask(Service.GATEWAY, join_request(host, make_csr(host), totp_code=code), JoinAnswer)
