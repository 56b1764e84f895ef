"""CA rollover while something else is under way: unlocking, slots, renaming, a restart."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from broker.clock import wall_s
from broker.errors import BadPassphraseError, BundleRejectedError, ConflictError
from broker.pki.authority import fingerprint
from broker.pki.bundle import sign_bundle
from broker.pki.seal import open_root, open_with_passphrase
from broker.shell.nextvault import find_aside
from broker.shell.vault import Vault, load_vault
from broker.wire.authority import AuthorityView, LockAuthority, UnlockAuthority
from broker.wire.codec import decode_body, encode_body
from broker.wire.control import Ack, Fault
from broker.wire.failover import Hint, ReportSightings
from broker.wire.ids import Service
from broker.wire.messages import AnyReply
from broker.wire.node import Membership
from broker.wire.rollover import StartRollover
from broker.wire.roster import (
    BundleAnswer,
    BundleBody,
    BundleInstalled,
    GetBundle,
    HeartbeatAnswer,
    HeartbeatPlan,
    InstallBundle,
    MemberView,
    NoteHeartbeat,
    PrepareHeartbeat,
    RecordHeartbeat,
    RenameMember,
)
from broker.wire.slot import AddSlot, RemoveSlot, SlotAnswer
from tests.shell.mesh_room import Node, pushed_clock
from tests.shell.office import PASSPHRASE
from tests.shell.rollover_room import RolloverRoom
from tests.shell.test_shell_rollover import everybody_ready, over, started, vault_pin
from tests.support import eventually

SECOND = "a second passphrase of this node"


@pytest.fixture
def room(home: Path) -> Iterator[RolloverRoom]:
    """Primary atlas, standby borea, member pi."""
    with pushed_clock() as clock:
        room = RolloverRoom.begin(home, clock, "borea", "pi")
        room.nominate("borea")
        yield room


def settled(room: RolloverRoom, node: Node) -> AnyReply:
    """Deliver what a thread of a node has computed; return the answer."""
    answers: list[AnyReply] = []
    eventually(lambda: room._answered(node, answers), within_s=20)
    return answers[0]


def test_an_unlock_that_began_before_the_switch_does_not_open_the_old_key_after_it(
    room: RolloverRoom,
) -> None:
    """Deriving takes a second, in which the vault may become that of another CA."""
    _, new = started(room)
    borea = room["borea"]
    borea.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    identity = borea.office.introduce(Service.CONSOLE)
    request = UnlockAuthority(PASSPHRASE.encode(), "ann")
    assert borea.office.turn([(identity, request, secrets.token_bytes(16))]) == []
    room.finish()
    room.run(20_000, until=lambda: vault_pin(borea) == new)
    answer = settled(room, borea)
    assert isinstance(answer, Fault)
    assert "meanwhile" in answer.detail
    assert borea.office.desk.state.keys.state == "locked"


def test_a_new_name_and_a_new_root_in_one_drain_are_both_kept(room: RolloverRoom) -> None:
    """The membership file holds both, and each change writes the whole of it."""
    old, pi, atlas = room.pin, room["pi"], room["atlas"]
    new = room.start().next_pin
    atlas.ask(Service.CONSOLE, RenameMember("pi", "oak", "ann"), MemberView)
    raw = atlas.ask(Service.GATEWAY, GetBundle(peer=pi.peer), BundleAnswer).bundle
    beat = RecordHeartbeat(
        peer=pi.peer,
        pin=old,
        served_serial="",
        served_not_after=None,
        served="unknown",
        endpoint=None,
        clock=wall_s(),
        bundle_sequence=0,
        term=1,
    )
    answer = atlas.ask(Service.GATEWAY, beat, HeartbeatAnswer)
    assert answer.named is not None
    calls = [
        (Service.ROSTER_SYNC, InstallBundle(raw, "atlas")),
        (Service.HEARTBEAT, NoteHeartbeat("atlas", answer)),
    ]
    turn = [
        (pi.office.introduce(service), request, secrets.token_bytes(16))
        for service, request in calls
    ]
    pi.office.turn(turn)
    assert room.trusts(pi) == (old, new)
    on_disk = msgspec.json.decode(pi.office.paths.membership.read_bytes(), type=Membership)
    assert (on_disk.host, len(on_disk.other_roots)) == ("oak", 1)


def test_a_primary_that_was_away_does_not_take_everybody_for_away(room: RolloverRoom) -> None:
    """Who could not be heard because nobody listened is no reason to go on without them."""
    room.idle.add("pi")
    new = room.start().next_pin
    room.run(60_000, until=lambda: room.status().lacking == ("pi",))
    room.run(6_000)  # what it heard is on disk
    room.clock.push(600_000)
    room.back(room["atlas"])
    room.cut("atlas", "pi")
    room.run(5_000, until=lambda: room.serves(room["atlas"]))
    room.run(5_000)
    with pytest.raises(ConflictError, match="pi"):
        room.finish()
    assert room.pin != new


def change_slots(room: RolloverRoom, request: AddSlot | RemoveSlot) -> AnyReply:
    """Let the operator of atlas add or remove a way to unlock; return the answer."""
    atlas = room["atlas"]
    identity = atlas.office.introduce(Service.CONSOLE)
    entries = atlas.office.turn([(identity, request, secrets.token_bytes(16))])
    return entries[0].reply if entries else settled(room, atlas)


def first_slot(node: Node) -> str:
    """Return the id of the passphrase slot that the mesh was made with."""
    vault = node.office.desk.state.keys.vault
    assert vault is not None
    return vault.sealed.of_kind("passphrase")[0].slot_id


def test_a_passphrase_that_was_removed_opens_no_ca_that_lies_aside(room: RolloverRoom) -> None:
    """A slot that the audit trail calls gone is gone, on the whole disk."""
    atlas = room["atlas"]
    place, first = atlas.office.paths.authority, first_slot(atlas)
    add = AddSlot("passphrase", PASSPHRASE.encode(), "ann", new=SECOND.encode())
    assert isinstance(change_slots(room, add), SlotAnswer)
    new = room.start(SECOND).next_pin
    removed = change_slots(room, RemoveSlot(first, SECOND.encode(), "ann"))
    assert isinstance(removed, SlotAnswer)
    kept = find_aside(place, new)
    assert kept is not None
    with pytest.raises(BadPassphraseError):
        open_with_passphrase(kept.sealed, PASSPHRASE.encode())
    assert open_root(kept.sealed, SECOND.encode())
    everybody_ready(room)
    room.finish()
    assert vault_pin(atlas) == new
    for vault in map(load_vault, (place, *place.parent.glob(f"{place.name}.*"))):
        assert vault is not None
        assert vault.sealed.slot(first) is None
        assert vault.sealed.roots
        assert all(root.slot_id != first for root in vault.sealed.roots)


def test_the_slot_that_alone_opens_the_next_root_key_stays(room: RolloverRoom) -> None:
    """The next CA is sealed for the passphrase that it was started with, and no other."""
    first = first_slot(room["atlas"])
    new = room.start().next_pin
    add = AddSlot("passphrase", PASSPHRASE.encode(), "ann", new=SECOND.encode())
    assert isinstance(change_slots(room, add), SlotAnswer)
    refusal = change_slots(room, RemoveSlot(first, SECOND.encode(), "ann"))
    assert isinstance(refusal, Fault)
    assert new[:16] in refusal.detail
    room.abort()
    removed = change_slots(room, RemoveSlot(first, SECOND.encode(), "ann"))
    assert isinstance(removed, SlotAnswer)


def test_a_ca_that_was_sealed_for_slots_of_before_is_not_announced(room: RolloverRoom) -> None:
    """Making it takes a while, in which a slot may have gone for a reason."""
    atlas = room["atlas"]
    identity = atlas.office.introduce(Service.CONSOLE)
    request = StartRollover(PASSPHRASE.encode(), "ann")
    assert atlas.office.turn([(identity, request, secrets.token_bytes(16))]) == []
    vault = atlas.office.desk.state.keys.vault
    assert vault is not None
    atlas.office.desk.state.keys.vault = Vault(vault.root, vault.issuing, vault.sealed)
    answer = settled(room, atlas)
    assert isinstance(answer, Fault)
    assert "meanwhile" in answer.detail
    assert room.status().phase == "none"


def test_a_bundle_of_the_old_ca_cannot_keep_a_node_that_moved_on_from_dropping_it(
    room: RolloverRoom,
) -> None:
    """Whoever stole the old key could else bar every later bundle with a number of his choice."""
    old, new = started(room)
    thief, pi = room["atlas"].office.desk.state.keys.issuer, room["pi"]
    assert thief is not None
    room.finish()
    room.run(90_000, until=lambda: room.trusts(pi) == (new, old))
    known = pi.office.desk.state.follow.bundle
    assert known is not None
    body = decode_body(encode_body(known), BundleBody)
    head = msgspec.structs.replace(body.head, term=body.head.term + 1_000_000)
    forged = msgspec.structs.replace(body, pin=old, head=head, roots=(), issuers=())
    raw = encode_body(sign_bundle(thief, forged))
    with pytest.raises(BundleRejectedError):
        pi.ask(Service.ROSTER_SYNC, InstallBundle(raw, "thief"), BundleInstalled)
    over(room)
    assert room.trusts(pi) == (new,)
    assert fingerprint(thief.root_der) == old


def test_a_primary_that_announces_the_next_root_is_no_stranger(room: RolloverRoom) -> None:
    """Who was away during the switch pins the old root still, and trusts the new one."""
    _, new = started(room)
    pi = room["pi"]
    room.cut("pi", "atlas")
    room.cut("pi", "borea")
    seen = Hint("certmesh-ca-carol", ("127.0.0.9",), 7642, "primary", new, "2")
    room.run(10_000)
    pi.ask(Service.FAILOVER, ReportSightings((), (seen,)), Ack)
    plan = pi.ask(Service.HEARTBEAT, PrepareHeartbeat(), HeartbeatPlan)
    assert "carol" in [target.host for target in plan.targets]
