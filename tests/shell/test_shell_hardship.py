"""Failover when something else goes wrong too: full disks, crashes between steps, liars."""

import hashlib
from collections.abc import Callable

import msgspec
import pytest

from broker.clock import boottime_ms, wall_s
from broker.errors import NotAMemberError, NotPrimaryError, RevokedError, StorageError
from broker.pki.seal import open_with_passphrase
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.base import Request
from broker.wire.control import Ack
from broker.wire.enrollment import (
    CreateInvite,
    GetTrust,
    InviteView,
    JoinAnswer,
    TrustAnswer,
)
from broker.wire.facts import EnrollmentClosed
from broker.wire.failover import FailoverPlan, Hint, PlanFailover, ReportSightings
from broker.wire.ids import Service
from broker.wire.renewal import RenewalAnswer, RenewAsPeer, StartRekey
from broker.wire.replica import AcceptKey, InstallKey, KeyPackage, PlanSync, ReportReady, SyncPlan
from broker.wire.roster import (
    HeartbeatAnswer,
    HeartbeatPlan,
    NoteHeartbeat,
    PrepareHeartbeat,
    RecordHeartbeat,
    RevocationAnswer,
    RevokeMember,
)
from broker.wire.standby import (
    NominateStandby,
    PromoteHere,
    PromotionAnswer,
    RemoveStandby,
    StepDown,
    StepDownAnswer,
)
from broker.wire.work import Approve, CompleteWork, Decided, LeaseWork, WorkAnswer
from tests.ledger.ledger_facts import asked
from tests.shell.mesh_room import TIMERS, Node, Room
from tests.shell.office import PASSPHRASE, join_request, make_csr
from tests.shell.scenes import Make, events, fail_over


def refuse_commits(
    node: Node, monkeypatch: pytest.MonkeyPatch, when: Callable[[], bool] = lambda: True
) -> None:
    """Let the disk of a node be full from now on, or whenever `when` says so."""
    ledger = node.office.ledger
    real = ledger.commit

    def commit() -> None:
        if not when():
            real()
            return
        ledger.rollback()
        raise StorageError("the disk is full")

    monkeypatch.setattr(ledger, "commit", commit)


def test_a_promotion_that_a_full_disk_took_back_is_known_to_nobody(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a beat nor a head of the term that never was; the next standby takes over."""
    room = make("birch", "cedar", "dune")
    room.nominate("birch")
    room.nominate("cedar")
    room["atlas"].down = True
    began_ms = boottime_ms()
    with monkeypatch.context() as patch:
        # Only the drain of the promotion fails: an earlier failure would excuse it altogether.
        refuse_commits(room["birch"], patch, lambda: room["birch"].office.desk.state.serves)
        while not room.serves(room["cedar"]):
            room.run(250)
            assert room["birch"].role == "standby"
            assert "birch" not in room["birch"].office.desk.state.gossip.signed
            assert boottime_ms() - began_ms < 14_000
    assert room["cedar"].office.ledger.term == 2
    assert not room.serves(room["birch"])
    room.run(3_000, until=lambda: room.lag("birch") == 0)


def test_a_head_is_shown_only_when_its_row_is_durable(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head of a row that was rolled back would be a version nobody can reach."""
    room = make("birch")
    atlas = room["atlas"]
    room.run(1_000)
    shown = atlas.office.desk.state.gossip.head_version
    with monkeypatch.context() as patch:
        refuse_commits(atlas, patch)
        console = atlas.office.introduce(Service.CONSOLE)
        door = atlas.office.introduce(Service.GATEWAY)
        calls: list[tuple[bytes, Request, bytes]] = [
            (console, RevokeMember("birch", "lost", "ann"), b"r" * 16),
            (door, heartbeat_of(room, "birch"), b"h" * 16),
        ]
        atlas.office.turn(calls)
    assert atlas.office.desk.state.gossip.head_version == shown
    room.run(1_000)


def heartbeat_of(room: Room, host: str) -> RecordHeartbeat:
    """Return what a node's heartbeat worker would send."""
    plan = room[host].ask(Service.HEARTBEAT, PrepareHeartbeat(), HeartbeatPlan)
    return RecordHeartbeat(
        peer=room[host].peer,
        pin=plan.pin,
        served_serial=plan.served_serial,
        served_not_after=plan.served_not_after,
        served=plan.served,
        endpoint=None,
        clock=wall_s(),
        bundle_sequence=plan.bundle_sequence,
        term=plan.term,
        gossip=plan.gossip,
    )


def test_a_deposed_primary_takes_no_decision_that_was_leased_before(make: Make) -> None:
    """One row of its own in a standby's journal would part it from the primary for ever (P4)."""
    room = make("birch", "cedar", enrollment={})
    room.nominate("birch")
    room.run(2_000)
    atlas = room["atlas"].office
    approver = atlas.introduce(Service.APPROVAL)
    lease = ask_for_approval(room, approver)
    room["atlas"].ask(Service.CONSOLE, StepDown("ann"), StepDownAnswer)
    room.run(3_000, until=lambda: room.serves(room["birch"]))
    said = Decided(approve=True, operator="ann", reason="")
    with pytest.raises(Exception, match=r"over|primary"):
        atlas.send(approver, CompleteWork(lease, said), Ack)
    room.run(2_000)
    assert room.lag("atlas") == 0


def ask_for_approval(room: Room, approver: bytes) -> int:
    """Let a stranger with a code wait at atlas; return the lease of the worker that is to ask."""
    atlas = room["atlas"].office
    atlas.ledger.begin()
    atlas.ledger.append(asked("ab", "elm", wall_s() + 3600), actor="elm", now=wall_s())
    atlas.ledger.commit()
    lease = atlas.send(approver, LeaseWork(), WorkAnswer).lease
    assert lease is not None
    assert isinstance(lease.item, Approve)
    return lease.lease_id


def test_a_withdrawn_nomination_leaves_a_plain_member(room: Room) -> None:
    """It must not ask for the key for ever, nor keep one it got a moment before."""
    atlas, cedar = room["atlas"], room["cedar"]
    atlas.ask(Service.CONSOLE, NominateStandby("cedar", "ann"), Ack)
    room.beat(cedar)
    plan = cedar.ask(Service.ROSTER_SYNC, PlanSync(), SyncPlan)
    assert plan.errand == "accept"
    package = atlas.ask(Service.GATEWAY, AcceptKey(cedar.peer, plan.public_key), KeyPackage)
    cedar.ask(Service.ROSTER_SYNC, InstallKey("atlas", package), Ack)
    atlas.ask(Service.CONSOLE, RemoveStandby("cedar", "ann"), Ack)
    room.run(3_000)
    assert cedar.role == "member"
    assert cedar.office.desk.state.keys.state == "absent"
    assert cedar.ask(Service.ROSTER_SYNC, PlanSync(), SyncPlan).errand == "bundle"


def test_a_crash_after_saying_ready_loses_no_standby(room: Room) -> None:
    """The roster calls it a standby: it gets the key again and becomes one."""
    atlas, cedar = room["atlas"], room["cedar"]
    atlas.ask(Service.CONSOLE, NominateStandby("cedar", "ann"), Ack)
    room.beat(cedar)
    plan = cedar.ask(Service.ROSTER_SYNC, PlanSync(), SyncPlan)
    package = atlas.ask(Service.GATEWAY, AcceptKey(cedar.peer, plan.public_key), KeyPackage)
    cedar.ask(Service.ROSTER_SYNC, InstallKey("atlas", package), Ack)
    atlas.ask(Service.GATEWAY, ReportReady(cedar.peer), Ack)
    cedar.restart()
    cedar.tick()
    room.run(6_000, until=lambda: cedar.role == "standby" and room.lag("cedar") == 0)


def test_one_member_with_a_wrong_clock_stops_no_takeover(room: Room) -> None:
    """What one member says of the time is no evidence about this node's clock (P8)."""
    for _ in range(5):
        beat = msgspec.structs.replace(heartbeat_of(room, "cedar"), clock=wall_s() + 600)
        room["birch"].ask(Service.GATEWAY, beat, HeartbeatAnswer)
    assert room["birch"].office.desk.state.presence.clock_off_s(wall_s()) == 0
    fail_over(room)


def test_a_former_primary_that_was_removed_meanwhile_learns_that_its_term_is_over(
    room: Room,
) -> None:
    """It may no longer claim anything, but it gets an answer."""
    fail_over(room)
    room["birch"].ask(Service.CONSOLE, RemoveStandby("atlas", "ann"), Ack)
    room.run(2_000)  # members know it too: none of them would tell atlas
    room["atlas"].restart()
    room.run(8_000, until=lambda: room["atlas"].role == "member")
    assert room["atlas"].office.desk.state.keys.state == "absent"


def test_an_heir_keeps_a_revocation_that_only_its_bundle_had(room: Room) -> None:
    """The bundle came, the row did not: revoked is revoked."""
    atlas, birch = room["atlas"], room["birch"]
    atlas.ask(Service.CONSOLE, RevokeMember("cedar", "stolen", "ann"), RevocationAnswer)
    room._bundle(birch, birch.office.desk.state.leader())  # type: ignore[arg-type]  # atlas leads
    fail_over(room)
    request = RenewAsPeer(room["cedar"].peer, make_csr("cedar"))
    with pytest.raises(RevokedError):
        birch.ask(Service.GATEWAY, request, RenewalAnswer)
    assert "member.revoked" in events(room, "birch")


def test_a_member_that_was_away_finds_the_heir_by_its_announcement(make: Make) -> None:
    """Its bundle names a dead primary only; mDNS says where to ask, a signed beat who leads."""
    room = make("birch", "cedar", "dune")
    room.run(1_000)
    room["cedar"].down = True
    room.nominate("birch")
    fail_over(room)
    room["cedar"].down = False
    pin = room["atlas"].office.creation.pin
    seen = Hint("certmesh-ca-birch", ("127.0.0.2",), 7642, "primary", pin, "2")
    for _ in range(60):
        room["cedar"].ask(Service.FAILOVER, ReportSightings((), (seen,)), Ack)
        room.run(250)
    leader = room["cedar"].office.desk.state.leader()
    assert leader is not None
    assert leader.host == "birch"
    assert "birch" in room["cedar"].office.desk.state.key_holder_doors()


def test_crl_numbers_grow_over_a_takeover(room: Room) -> None:
    """RFC 5280 5.2.3: a reader that saw a higher number takes the newer list for an old one."""
    before = room["atlas"].ask(Service.GATEWAY, GetTrust(), TrustAnswer).crl_number
    fail_over(room)
    after = room["birch"].ask(Service.GATEWAY, GetTrust(), TrustAnswer).crl_number
    assert after > before


def test_what_an_answer_says_without_a_signature_moves_nobody(room: Room) -> None:
    """A lying standby can neither name another primary nor raise the term (P8)."""
    cedar = room["cedar"]
    birch_doors = room["atlas"].office.desk.state.key_holder_doors()["birch"]
    answer = HeartbeatAnswer(
        valid=True,
        primary=birch_doors,
        term=10**9,
        bundle_sequence=10**9,
        clock=wall_s(),
        next_beat_ms=1000,
    )
    cedar.ask(Service.HEARTBEAT, NoteHeartbeat("birch", answer), Ack)
    cedar.restart()
    state = cedar.office.desk.state
    leader = state.leader()
    assert leader is None or leader.host == "atlas"
    assert state.term == 1
    with pytest.raises(NotAMemberError):
        cedar.ask(Service.HEARTBEAT, NoteHeartbeat("mallory", answer), Ack)


def test_a_primary_that_wakes_up_asks_before_it_writes(room: Room) -> None:
    """The request that ends a pause may come before the first tick (row 21, P4)."""
    room.clock.push(4_000)
    with pytest.raises(NotPrimaryError, match="away"):
        room["atlas"].ask(Service.CONSOLE, RevokeMember("cedar", "lost", "ann"), RevocationAnswer)
    room.run(4_000, until=lambda: room.serves(room["atlas"]))


def test_locking_a_standby_writes_no_row(room: Room) -> None:
    """The journal has one writer."""
    before = room["birch"].office.ledger.head
    room["birch"].ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    assert room["birch"].office.ledger.head == before
    assert room["birch"].office.desk.state.keys.state == "locked"


def test_an_heir_that_restarts_at_once_still_leads(room: Room) -> None:
    """Role and term were durable before anybody heard of them."""
    fail_over(room)
    room["birch"].restart()
    assert room["birch"].phase == "serving"
    assert room["birch"].office.desk.state.term == 2


def test_a_member_refuses_a_key_holder_whose_revocation_the_heir_missed(make: Make) -> None:
    """Who has seen a revocation goes on refusing, whatever a later bundle lacks."""
    room = make("birch", "cedar", "dune")
    room.nominate("birch")
    room.nominate("dune")
    room.cut("atlas", "birch")
    dune = room["dune"].peer
    room["dune"].down = True
    room["atlas"].ask(Service.CONSOLE, RevokeMember("dune", "stolen", "ann"), RevocationAnswer)
    room.run(1_000)
    room["atlas"].down = True
    room.run(7_000)
    room["birch"].ask(Service.CONSOLE, PromoteHere("ann", force=True), PromotionAnswer)
    room.run(2_000)
    cedar = room["cedar"].office.desk.state
    assert cedar.follow.bundle is not None
    assert dune.serial not in cedar.follow.bundle.revoked_serials
    with pytest.raises(RevokedError):
        room["cedar"].ask(Service.GATEWAY, StartRekey(dune, 2), Ack)


def test_a_primary_that_lost_rows_goes_on_in_a_new_term(room: Room) -> None:
    """Its standby has rows of this very term that are not here: no number may be used twice."""
    atlas = room["atlas"]
    ledger = atlas.office.paths.ledger
    kept: list[bytes] = []
    atlas.restart(lambda: kept.append(ledger.read_bytes()))
    atlas.ask(Service.CONSOLE, RevokeMember("cedar", "stolen", "ann"), RevocationAnswer)
    room.step()
    assert room.lag("birch") == 0
    atlas.restart(lambda: ledger.write_bytes(kept[0]))
    assert atlas.phase == "serving"
    atlas.office.ledger.begin()
    while room.lag("birch") < 0:
        # The same numbers again, with other rows: no head that is shown is above its own.
        atlas.office.ledger.append(EnrollmentClosed(), actor="ann", now=wall_s())
    atlas.office.ledger.commit()
    room.run(3_000, until=lambda: atlas.office.ledger.term == 2)
    room.run(3_000, until=lambda: room["birch"].office.ledger.head.term == 2)
    room.run(8_000, until=lambda: room["birch"].office.ledger.orphan_count() == 0)
    for host in ("atlas", "birch"):
        member = room[host].office.ledger.latest_member_of_host("cedar")
        assert member is not None
        assert member.state == "revoked"


def test_a_standby_whose_clock_most_members_doubt_holds_back(make: Make) -> None:
    """Certificates it would issue would begin or end at the wrong time (row 19, P13)."""
    room = make("birch", "cedar", "dune", "elm")
    room.nominate("birch")
    for host in ("cedar", "dune", "elm"):
        beat = msgspec.structs.replace(heartbeat_of(room, host), clock=wall_s() + 600)
        room["birch"].ask(Service.GATEWAY, beat, HeartbeatAnswer)
    room["birch"].tick()
    room.clock.push(1_000)
    room["birch"].tick()
    reason = room["birch"].office.desk.state.surroundings().unready
    assert "clock is 600 s off" in reason


def test_an_attended_standby_is_locked_after_a_restart(make: Make) -> None:
    """`standby.unattended = false`: no secret beside the key, a person brings the passphrase."""
    room = make("birch", "cedar", standby={"unattended": False})
    room.nominate("birch")
    birch = room["birch"]
    assert not birch.office.paths.credential.exists()
    birch.restart()
    assert birch.office.desk.state.keys.state == "locked"
    vault = birch.office.desk.state.keys.vault
    assert vault is not None
    assert open_with_passphrase(vault.sealed, PASSPHRASE.encode()).issuing_key


def test_addresses_of_the_settings_are_asked_too(make: Make) -> None:
    """Where multicast is blocked and a node moved, a person can say where it is."""
    room = make("birch", "cedar", discovery={"peers": ["192.0.2.9:7643", "192.0.2.8:1"]})
    room.nominate("birch")
    plan = room["birch"].ask(Service.FAILOVER, PlanFailover(), FailoverPlan)
    (target,) = plan.targets
    assert target.addresses == ("127.0.0.1", "192.0.2.9")


def test_an_earlier_invite_is_honoured_where_the_settings_say_so(make: Make) -> None:
    """Who accepts that both sides of a cut may redeem it."""
    room = make("birch", "cedar", failover={"honour_invites": True, **TIMERS["failover"]})
    digest = hashlib.sha256(b"old").hexdigest()
    room["atlas"].ask(Service.CONSOLE, CreateInvite(digest, "elm", (), 3600, "ann"), InviteView)
    room.nominate("birch")
    fail_over(room)
    request = join_request("elm", make_csr("elm"), invite_secret="old")
    assert room["birch"].ask(Service.GATEWAY, request, JoinAnswer).issued is not None
