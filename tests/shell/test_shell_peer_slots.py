"""Peer slots: a key holder opens at a boot only if a member agrees; a stolen box stays shut."""

import secrets

import pytest
from msgspec.structs import replace

from broker.errors import (
    BadPassphraseError,
    ConflictError,
    NotAMemberError,
    NotFoundError,
    PeerUnreachableError,
    RevokedError,
    ThrottledError,
)
from broker.ledger.rows import JournalRow
from broker.pki.seal import open_with_secret
from broker.shell.verbs.halves import (
    GIVEN_MAX,
    GIVEN_WINDOW_S,
    HALVES_OF_ONE,
    LOCAL_HALVES,
    KeptHalves,
)
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.codec import decode_body, encode_body
from broker.wire.control import Ack
from broker.wire.facts import MemberRenamed
from broker.wire.ids import Service
from broker.wire.roster import RevocationAnswer, RevokeMember
from broker.wire.slot import (
    GiveHalf,
    HalfAnswer,
    KeepHalf,
    NoteHalf,
    PlanUnlock,
    SlotAnswer,
    UnlockPlan,
)
from tests.shell.mesh_room import Node, Room
from tests.shell.office import Office
from tests.shell.scenes import Make, fail_over
from tests.shell.slot_scenes import (
    add_peer_slot,
    adding,
    answer,
    begin,
    carry,
    change,
    credentials,
    finish,
    kinds,
    mode_of,
    removing,
    slots,
)

HALF = bytes(range(32))


def ca_of(room: Room, host: str) -> str:
    """Return the lock state of a node's CA."""
    return room[host].office.desk.state.keys.state


def rows(node: Node, event: str) -> list[JournalRow]:
    """Return the rows of one kind in a node's journal."""
    return [row for row in node.office.ledger.audit(0, 1000) if row.event == event]


def reboot(room: Room, host: str) -> Node:
    """Restart a node whose credential file is gone: nothing on its disk opens its CA."""
    node = room[host]
    node.restart(lambda: node.office.paths.credential.unlink(missing_ok=True))
    return node


def kept_at(node: Node) -> KeptHalves:
    """Return the halves that a node keeps for others."""
    raw = node.office.ledger.local_get(LOCAL_HALVES)
    return decode_body(raw, KeptHalves) if raw else KeptHalves()


def ask(room: Room, owner: str, peer: str, slot_id: str) -> HalfAnswer:
    """Ask a peer for a half, in the name of the owner."""
    request = GiveHalf(room[owner].peer, slot_id)
    return room[peer].ask(Service.GATEWAY, request, HalfAnswer)


def test_a_rebooted_key_holder_opens_when_its_peer_agrees(make: Make) -> None:
    """Nobody has to come by night, and the audit trail says who agreed."""
    room = make("cedar")
    room.run(1_000)
    slot_id = add_peer_slot(room, "atlas", "cedar")
    (view,) = [slot for slot in slots(room["atlas"].office) if slot.kind == "peer"]
    assert (view.slot_id, view.peer) == (slot_id, "cedar")
    atlas = reboot(room, "atlas")
    assert ca_of(room, "atlas") == "locked"
    carry(room, atlas)
    assert ca_of(room, "atlas") == "unlocked"
    room.run(10_000, until=lambda: room.serves(atlas))
    room.run(500)
    assert b"peer:cedar" in rows(atlas, "ca.unlocked")[-1].payload
    assert [row.event for row in rows(atlas, "ca.slot_added")] == ["ca.slot_added"]


def test_a_stolen_box_alone_stays_locked(room: Room) -> None:
    """All of its disk opens nothing while the peer is out of reach."""
    slot_id = add_peer_slot(room, "atlas", "cedar")
    room.cut("atlas", "cedar")
    atlas = reboot(room, "atlas")
    for _ in range(30):
        carry(room, atlas)
        room.clock.push(20_000)
    assert ca_of(room, "atlas") == "locked"
    vault = atlas.office.desk.state.keys.vault
    assert vault is not None
    own = atlas.office.paths.credential.with_name(f"peer-{slot_id}").read_bytes()
    for guess in (own, own + own, own + bytes(32)):
        with pytest.raises(BadPassphraseError):
            open_with_secret(vault.sealed, "peer", guess)


def test_a_stolen_box_that_was_revoked_gets_nothing_from_its_peer(room: Room) -> None:
    """The thief plugs it in again, on the very LAN."""
    slot_id = add_peer_slot(room, "atlas", "cedar")
    fail_over(room)
    birch = room["birch"]
    birch.ask(Service.CONSOLE, RevokeMember("atlas", "stolen", "ann"), RevocationAnswer)
    room.run(5_000, until=lambda: _knows_revocation(room["cedar"], room["atlas"].peer.serial))
    reboot(room, "atlas")
    with pytest.raises((RevokedError, NotAMemberError)):
        ask(room, "atlas", "cedar", slot_id)
    carry(room, room["atlas"])
    assert ca_of(room, "atlas") == "locked"


def _knows_revocation(node: Node, serial: str) -> bool:
    bundle = node.office.desk.state.follow.bundle
    return bundle is not None and serial in bundle.revoked_serials


def test_a_peer_that_serves_writes_down_that_it_agreed(room: Room) -> None:
    """Two trails: the owner's, and that of whoever gave the half."""
    slot_id = add_peer_slot(room, "atlas", "birch")
    fail_over(room)
    atlas = reboot(room, "atlas")
    carry(room, atlas)
    assert ca_of(room, "atlas") == "unlocked"
    (row,) = rows(room["birch"], "ca.half_given")
    assert slot_id.encode() in row.payload
    assert row.actor == "atlas"


def test_nobody_but_its_owner_gets_a_half(room: Room) -> None:
    """Another key holder has a certificate of the mesh too, and so has every member."""
    slot_id = add_peer_slot(room, "atlas", "cedar")
    with pytest.raises(NotAMemberError, match="another member"):
        ask(room, "birch", "cedar", slot_id)
    with pytest.raises(NotAMemberError, match="not a key holder"):
        ask(room, "cedar", "birch", slot_id)
    with pytest.raises(NotFoundError):
        ask(room, "atlas", "cedar", "00" * 8)
    assert ask(room, "atlas", "cedar", slot_id).slot_id == slot_id


def test_a_half_is_bound_to_the_identity_behind_the_name(room: Room) -> None:
    """A name may pass to another machine after its owner was revoked."""
    slot_id = add_peer_slot(room, "atlas", "cedar")
    cedar = room["cedar"]
    (half,) = kept_at(cedar).halves
    earlier = replace(half, member_id="ee" * 16)
    cedar.office.ledger.local_set(LOCAL_HALVES, encode_body(KeptHalves((earlier,))))
    with pytest.raises(NotAMemberError, match="another member"):
        ask(room, "atlas", "cedar", slot_id)
    with pytest.raises(ConflictError, match="cannot be kept"):
        cedar.ask(Service.GATEWAY, KeepHalf(room["atlas"].peer, slot_id, HALF), Ack)


def test_a_half_is_given_a_few_times_an_hour_whatever_restarts(room: Room) -> None:
    """Somebody who took over the box must not go unnoticed for long; wall time, so it lasts."""
    slot_id = add_peer_slot(room, "atlas", "cedar")
    for _ in range(GIVEN_MAX):
        ask(room, "atlas", "cedar", slot_id)
    with pytest.raises(ThrottledError):
        ask(room, "atlas", "cedar", slot_id)
    room["cedar"].restart()
    with pytest.raises(ThrottledError, match="within the hour"):
        ask(room, "atlas", "cedar", slot_id)
    room.clock.push(GIVEN_WINDOW_S * 1000)
    assert ask(room, "atlas", "cedar", slot_id).half


def test_a_clock_that_was_wrong_bars_nobody_for_long(room: Room) -> None:
    """The board without a battery booted in the year 2038 and gave halves there."""
    slot_id = add_peer_slot(room, "atlas", "cedar")
    room.clock.jump_s = 10 * GIVEN_WINDOW_S
    for _ in range(GIVEN_MAX):
        ask(room, "atlas", "cedar", slot_id)
    room.clock.jump_s = 0
    assert ask(room, "atlas", "cedar", slot_id).half


def test_a_peer_that_was_renamed_still_agrees(room: Room) -> None:
    """The slot means the member, whatever it is called now."""
    slot_id = add_peer_slot(room, "atlas", "cedar")
    cedar = room["atlas"].office.ledger.member_by_host("cedar")
    assert cedar is not None
    fact = MemberRenamed(cedar.member_id, "cedar", "oak", ("oak.home.arpa",), cedar.endpoint)
    batch = room["atlas"].office.desk.open_batch()
    batch.append(fact, "ann")
    room["atlas"].office.desk.finish(batch, [])
    atlas = reboot(room, "atlas")
    plan = atlas.ask(Service.ROSTER_SYNC, PlanUnlock(), UnlockPlan)
    assert plan.peer is not None
    half = ask(room, "atlas", "cedar", slot_id).half
    atlas.ask(Service.ROSTER_SYNC, NoteHalf(slot_id, plan.peer.host, half), Ack)
    assert ca_of(room, "atlas") == "unlocked"


def test_a_ca_that_was_locked_on_purpose_asks_nobody(room: Room) -> None:
    """Only a boot asks; else locking would last until the next round."""
    add_peer_slot(room, "atlas", "cedar")
    atlas = room["atlas"]
    atlas.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    plan, _ = carry(room, atlas)
    assert (plan.errand, plan.retry_in_ms) == ("none", 0)
    assert ca_of(room, "atlas") == "locked"
    half = ask(room, "atlas", "cedar", _peer_slot(atlas.office)).half
    note = NoteHalf(_peer_slot(atlas.office), "cedar", half)
    atlas.ask(Service.ROSTER_SYNC, note, Ack)
    assert ca_of(room, "atlas") == "locked", "a half that was under way when it was locked"


def _peer_slot(office: Office) -> str:
    return next(slot.slot_id for slot in slots(office) if slot.kind == "peer")


def test_nothing_is_kept_here_before_the_peer_has_its_half(room: Room) -> None:
    """A slot that can never open would look like one that can."""
    atlas = room["atlas"].office
    before = (kinds(atlas), credentials(atlas))
    room.cut("atlas", "cedar")
    assert begin(atlas, adding("peer", peer="cedar")) == []
    assert finish(atlas) == []
    assert (kinds(atlas), credentials(atlas)) == before
    _, late = carry(room, room["atlas"])
    with pytest.raises(PeerUnreachableError, match="did not take its half: no route"):
        answer(late, SlotAnswer)
    assert (kinds(atlas), credentials(atlas)) == before
    assert rows(room["atlas"], "ca.slot_added") == []


def test_defect_33_a_crash_after_the_peer_took_its_half_leaves_no_slot_and_no_obstacle(
    room: Room,
) -> None:
    """Half-made things used to answer "already exists" for ever."""
    atlas = room["atlas"]
    for _ in range(HALVES_OF_ONE + 1):
        assert begin(atlas.office, adding("peer", peer="cedar")) == []
        finish(atlas.office)
        plan = atlas.ask(Service.ROSTER_SYNC, PlanUnlock(), UnlockPlan)
        keep = KeepHalf(atlas.peer, plan.slot_id, plan.half)
        room["cedar"].ask(Service.GATEWAY, keep, Ack)
        atlas.restart()
        assert "peer" not in kinds(atlas.office)
    assert len(kept_at(room["cedar"]).halves) == HALVES_OF_ONE
    room.run(5_000, until=lambda: room.serves(atlas))
    add_peer_slot(room, "atlas", "cedar")
    reboot(room, "atlas")
    carry(room, atlas)
    assert ca_of(room, "atlas") == "unlocked"


def test_a_change_that_its_caller_has_given_up_comes_to_nothing(room: Room) -> None:
    """Whoever was told that it failed must not find a slot later."""
    atlas = room["atlas"]
    assert begin(atlas.office, adding("peer", peer="cedar")) == []
    finish(atlas.office)
    plan = atlas.ask(Service.ROSTER_SYNC, PlanUnlock(), UnlockPlan)
    room.clock.push(6_000)
    atlas.ask(Service.ROSTER_SYNC, NoteHalf(plan.slot_id, "cedar"), Ack)
    assert "peer" not in kinds(atlas.office)
    assert atlas.ask(Service.ROSTER_SYNC, PlanUnlock(), UnlockPlan).errand == "none"


def test_a_note_of_another_peer_or_slot_changes_nothing(room: Room) -> None:
    """The worker reports; the broker knows what it waits for."""
    atlas = room["atlas"]
    assert begin(atlas.office, adding("peer", peer="cedar")) == []
    finish(atlas.office)
    plan = atlas.ask(Service.ROSTER_SYNC, PlanUnlock(), UnlockPlan)
    for note in (NoteHalf(plan.slot_id, "birch"), NoteHalf("00" * 8, "cedar")):
        atlas.ask(Service.ROSTER_SYNC, note, Ack)
    assert "peer" not in kinds(atlas.office)


def test_a_wrong_half_opens_nothing_and_the_peer_is_asked_again_later(room: Room) -> None:
    """A peer whose disk was restored, or that lies."""
    slot_id = add_peer_slot(room, "atlas", "cedar")
    atlas = reboot(room, "atlas")
    for half in (HALF, b"", HALF + HALF):
        atlas.ask(Service.ROSTER_SYNC, NoteHalf(slot_id, "cedar", half), Ack)
    assert ca_of(room, "atlas") == "locked"
    plan = atlas.ask(Service.ROSTER_SYNC, PlanUnlock(), UnlockPlan)
    assert (plan.errand, plan.retry_in_ms > 0) == ("none", True)
    room.clock.push(plan.retry_in_ms)
    carry(room, atlas)
    assert ca_of(room, "atlas") == "unlocked"


@pytest.mark.parametrize("trouble", ["open to others", "missing", "torn"])
def test_defect_36_a_half_that_others_may_read_is_not_used(room: Room, trouble: str) -> None:
    """And the peer is not bothered for nothing."""
    slot_id = add_peer_slot(room, "atlas", "cedar")
    own = room["atlas"].office.paths.credential.with_name(f"peer-{slot_id}")
    assert mode_of(own) == 0o600
    match trouble:
        case "open to others":
            own.chmod(0o644)
        case "missing":
            own.unlink()
        case _:
            own.write_bytes(bytes(16))
    atlas = reboot(room, "atlas")
    plan, _ = carry(room, atlas)
    assert plan.errand == "none"
    assert kept_at(room["cedar"]).halves[0].given == ()
    assert ca_of(room, "atlas") == "locked"


def test_a_second_peer_stands_in_for_the_first(make: Make) -> None:
    """Two slots, two ways: one silent peer is no night call."""
    room = make("birch", "cedar")
    room.nominate("birch")
    add_peer_slot(room, "atlas", "birch")
    add_peer_slot(room, "atlas", "cedar")
    room.cut("atlas", "birch")
    atlas = reboot(room, "atlas")
    carry(room, atlas)
    assert ca_of(room, "atlas") == "unlocked"


def test_a_removed_peer_slot_is_over(room: Room) -> None:
    """Its file goes, nobody is asked, and what the peer still keeps opens nothing."""
    slot_id = add_peer_slot(room, "atlas", "cedar")
    atlas = room["atlas"]
    gone = change(atlas.office, removing(slot_id))
    assert "opens nothing" in gone.note
    assert f"peer-{slot_id}" not in credentials(atlas.office)
    reboot(room, "atlas")
    assert atlas.ask(Service.ROSTER_SYNC, PlanUnlock(), UnlockPlan).errand == "none"
    add_peer_slot(room, "atlas", "cedar")


def test_a_peer_has_to_be_another_active_member(room: Room) -> None:
    """A slot that waits for nobody."""
    atlas = room["atlas"].office
    with pytest.raises(ConflictError, match="its own unlocking"):
        change(atlas, adding("peer", peer="atlas"))
    with pytest.raises(NotFoundError):
        change(atlas, adding("peer", peer="nobody"))
    add_peer_slot(room, "atlas", "cedar")
    with pytest.raises(ConflictError, match="keeps a half already"):
        change(atlas, adding("peer", peer="cedar"))


def test_a_standby_has_peer_slots_of_its_own(room: Room) -> None:
    """It writes no journal: its unlock goes into the trail when it serves."""
    add_peer_slot(room, "birch", "cedar")
    assert rows(room["birch"], "ca.slot_added") == []
    birch = reboot(room, "birch")
    carry(room, birch)
    assert ca_of(room, "birch") == "unlocked"
    room.run(1_000)
    fail_over(room)
    room.run(1_000)
    assert b"peer:cedar" in rows(birch, "ca.unlocked")[-1].payload


def test_a_new_passphrase_says_that_the_standbys_keep_the_old_one(room: Room) -> None:
    """Who changes it after a leak has to change it everywhere."""
    added = change(room["atlas"].office, adding("passphrase", new=secrets.token_hex(8)))
    assert "other key holders" in added.note
    assert kinds(room["birch"].office).count("passphrase") == 1


def test_no_half_is_in_any_representation() -> None:
    """Messages end in tracebacks and logs."""
    for message in (
        UnlockPlan("give", "00" * 8, half=HALF),
        NoteHalf("00" * 8, "cedar", HALF),
        HalfAnswer(HALF, "00" * 8),
        adding("passphrase", new="a new passphrase"),
        removing("00" * 8),
    ):
        assert repr(message) == f"{type(message).__name__}(...)"
