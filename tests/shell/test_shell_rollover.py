"""CA rollover through a whole mesh: trusted before it signs, trusted after it stopped.

In this room nodes connect only where mutual TLS would, so each test also shows that nobody is cut
off on the way.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from broker.errors import (
    BadPassphraseError,
    BundleRejectedError,
    ConflictError,
    NotPrimaryError,
)
from broker.ledger.sqlite import Ledger
from broker.pki.authority import fingerprint
from broker.pki.bundle import sign_bundle
from broker.shell.nextvault import find_aside, pins_aside
from broker.shell.vault import load_vault
from broker.wire.codec import decode_body, encode_body
from broker.wire.enrollment import CreateInvite, InvitesView, InviteView, ListInvites
from broker.wire.facts import RolloverFinished
from broker.wire.ids import Service
from broker.wire.roster import BundleBody, BundleInstalled, InstallBundle, SignedBundle
from tests.shell.mesh_room import Node, pushed_clock
from tests.shell.rollover_room import RolloverRoom, root_of

DAY_S = 86_400


@pytest.fixture
def room(home: Path) -> Iterator[RolloverRoom]:
    """Primary atlas, standby borea, member pi."""
    with pushed_clock() as clock:
        room = RolloverRoom.begin(home, clock, "borea", "pi")
        room.nominate("borea")
        yield room


def started(room: RolloverRoom) -> tuple[str, str]:
    """Start a rollover and wait until everybody trusts its root; return old and new pin."""
    old, new = room.pin, room.start().next_pin
    everybody_ready(room)
    return old, new


def everybody_ready(room: RolloverRoom) -> None:
    """Wait until nobody holds the next step back."""

    def ready() -> bool:
        view = room.status()
        return view.trusting == view.members and not view.standbys_lacking

    room.run(120_000, until=ready)


def over(room: RolloverRoom) -> None:
    """Wait until the old CA has retired and everybody has dropped its root."""
    room.run(120_000, until=lambda: room.status().phase == "none")
    pin = room.pin
    living = [node for node in room.nodes.values() if not node.down]
    room.run(90_000, until=lambda: all(room.trusts(node) == (pin,) for node in living))
    room.run(90_000, until=lambda: all(roots(node) == {pin} for node in living))


def roots(node: Node) -> set[str]:
    """Return the pins in the chain file of a node: what its services trust."""
    return set(node.office.desk.state.own.roots)


def vault_pin(node: Node) -> str:
    """Return the pin of the CA in the vault on a node's disk."""
    vault = load_vault(node.office.paths.authority)
    assert vault is not None
    return fingerprint(vault.root)


def aside(node: Node) -> tuple[str, ...]:
    """Return which CAs lie aside on a node."""
    return pins_aside(node.office.paths.authority)


def test_a_rollover_goes_from_trust_to_the_new_ca_to_the_end_of_the_old_one(
    room: RolloverRoom,
) -> None:
    """The whole way: the new CA signs once all trust it, the old one goes when nobody needs it."""
    old, new = started(room)
    assert (room.status().phase, room.pin) == ("trusting", old)
    assert all(room.trusts(node) == (old, new) for node in room.nodes.values())
    assert all(roots(node) == {old, new} for node in room.nodes.values())
    room.finish()
    assert room.pin == new
    over(room)
    assert all(root_of(node) == new for node in room.nodes.values())
    assert [vault_pin(room[host]) for host in ("atlas", "borea")] == [new, new]
    assert aside(room["atlas"]) == aside(room["borea"]) == ()


def test_the_old_ca_goes_on_signing_until_the_switch(room: RolloverRoom) -> None:
    """`trusting` changes trust and nothing else: whoever sleeps a while is not cut off."""
    old, _ = started(room)
    pi = room.join("ant", 9)
    assert [fingerprint_of_root(room, pi), vault_pin(room["atlas"])] == [old, old]


def fingerprint_of_root(room: RolloverRoom, node: Node) -> str:
    """Return what a new member pins."""
    return room.trusts(node)[0]


def test_the_next_ca_has_a_name_of_its_own_and_the_constraints_of_the_present_policy(
    room: RolloverRoom,
) -> None:
    """A trust store that holds both roots has to tell them apart."""
    old, new = started(room)
    names = []
    for pin in (old, new):
        vault = find_aside(room["atlas"].office.paths.authority, pin)
        vault = vault or load_vault(room["atlas"].office.paths.authority)
        assert vault is not None
        names.append(x509.load_der_x509_certificate(vault.root).subject.rfc4514_string())
    assert names[1] == names[0].replace(",O=", " 2,O=")


def test_a_wrong_passphrase_starts_nothing(room: RolloverRoom) -> None:
    """The root key is sealed with it: a typing error would lose that for ever."""
    with pytest.raises(BadPassphraseError):
        room.start("thickness islamic barman banknot")
    assert room.status().phase == "none"
    assert aside(room["atlas"]) == ()


def test_a_second_rollover_waits_for_the_first(room: RolloverRoom) -> None:
    """Three roots at once is one more than anybody can follow."""
    started(room)
    with pytest.raises(ConflictError, match="under way"):
        room.start()
    room.finish()
    with pytest.raises(ConflictError, match="not over"):
        room.start()
    over(room)
    old, new = started(room)
    assert old != new


def test_only_the_primary_replaces_the_ca(room: RolloverRoom) -> None:
    """A standby that makes a CA of its own would split the mesh."""
    from broker.wire.rollover import FinishRollover, RolloverView  # noqa: PLC0415

    started(room)
    with pytest.raises(NotPrimaryError):
        room["borea"].ask(Service.CONSOLE, FinishRollover("ann"), RolloverView)


def test_finish_is_refused_while_a_live_member_lacks_the_new_trust(room: RolloverRoom) -> None:
    """Its services would refuse everybody who renews: it is named, and nothing changes."""
    room.idle.add("pi")
    room.start()
    room.run(70_000, until=lambda: room.status().trusting == 2)
    assert room.status().lacking == ("pi",)
    with pytest.raises(ConflictError, match="pi does not trust the next root"):
        room.finish()
    room.idle.clear()
    everybody_ready(room)
    assert room.finish().phase == "switched"


def test_finish_is_refused_while_a_standby_lacks_the_next_key(room: RolloverRoom) -> None:
    """It could have to lead with a key that it does not have."""
    room.cut("atlas", "borea")
    room.start()
    room.run(5_000)
    assert room.status().standbys_lacking == ("borea",)
    with pytest.raises(ConflictError, match="standby borea lacks the next key"):
        room.finish()
    room.cuts.clear()
    everybody_ready(room)
    assert room.finish(dry_run=True).phase == "trusting"


def test_a_dry_run_says_what_becomes_of_open_invites_and_changes_nothing(
    room: RolloverRoom,
) -> None:
    """An invite names the old root: after the switch no joiner could verify the door with it."""
    started(room)
    invite = CreateInvite("ab" * 32, "ant", (), 3600, "ann")
    room["atlas"].ask(Service.CONSOLE, invite, InviteView)
    assert "1 open invites" in room.finish(dry_run=True).detail
    assert (room.status().phase, states_of_invites(room)) == ("trusting", ["used", "used", "open"])
    assert "were revoked" in room.finish().detail
    assert states_of_invites(room) == ["used", "used", "revoked"]


def states_of_invites(room: RolloverRoom) -> list[str]:
    """Return the states of all invites, oldest first."""
    view = room.primary().ask(Service.CONSOLE, ListInvites(), InvitesView)
    return [invite.state for invite in reversed(view.invites)]


def test_abort_takes_the_trust_back_and_destroys_the_next_keys(room: RolloverRoom) -> None:
    """A CA that never signed leaves nothing behind, and a further start is possible."""
    old, new = started(room)
    assert aside(room["atlas"]) == (new[:16],)
    room.abort()
    assert aside(room["atlas"]) == ()
    room.run(90_000, until=lambda: all(room.trusts(n) == (old,) for n in room.nodes.values()))
    room.run(90_000, until=lambda: all(roots(n) == {old} for n in room.nodes.values()))
    assert started(room)[0] == old


def test_abort_is_too_late_after_the_switch(room: RolloverRoom) -> None:
    """Certificates of the next CA are in use by then."""
    _, new = started(room)
    room.finish()
    with pytest.raises(ConflictError, match="signs already"):
        room.abort()
    over(room)
    assert room.pin == new


def test_a_restart_of_every_node_in_every_phase_costs_nothing(room: RolloverRoom) -> None:
    """What a phase is lies in the ledger and in `membership.json`; memory holds copies."""

    def restart_all() -> None:
        for node in room.nodes.values():
            room.back(node)
        room.run(2_000)

    room.start()
    restart_all()
    everybody_ready(room)
    restart_all()
    room.finish()
    restart_all()
    over(room)
    restart_all()
    room.run(20_000)
    assert {room.trusts(node) for node in room.nodes.values()} == {(room.pin,)}
    assert all(root_of(node) == room.pin for node in room.nodes.values())


def test_a_kill_between_the_row_and_the_exchange_of_the_keys_mends_itself(
    room: RolloverRoom,
) -> None:
    """The row says which CA is in force: a start brings the vault in line before it signs."""
    old, new = started(room)
    atlas = room["atlas"]

    def only_the_row() -> None:
        ledger = Ledger.open(atlas.office.paths.ledger, node="atlas")
        ledger.begin()
        ledger.append(RolloverFinished(new, old), actor="ann", now=ledger.audit(0, 1)[0].at)
        ledger.commit()
        ledger.close()

    kept = atlas.office.desk.state.own.roots
    atlas.restart(only_the_row)
    room.say(atlas, kept)
    assert vault_pin(atlas) == new
    over(room)
    assert all(root_of(node) == new for node in room.nodes.values())


def test_a_standby_that_takes_over_while_trusting_can_finish(room: RolloverRoom) -> None:
    """It has the next key from the journal, sealed under the key that all key holders share."""
    _, new = started(room)
    room["atlas"].down = True
    room.run(60_000, until=lambda: room.serves(room["borea"]))
    room.run(20_000, until=lambda: room["borea"].office.desk.state.leader() is None)
    with pytest.raises(ConflictError, match="standby atlas lacks the next key"):
        room.finish()
    room.back(room["atlas"])
    everybody_ready(room)
    room.finish()
    assert room.pin == new
    over(room)
    assert vault_pin(room["borea"]) == vault_pin(room["atlas"]) == new


def test_a_standby_that_takes_over_after_the_switch_signs_with_the_new_ca(
    room: RolloverRoom,
) -> None:
    """The exchange of its vault follows the row, as on the primary."""
    _, new = started(room)
    room.finish()
    room.run(5_000, until=lambda: vault_pin(room["borea"]) == new)
    room["atlas"].down = True
    room.run(60_000, until=lambda: room.serves(room["borea"]))
    room.run(120_000, until=lambda: root_of(room["pi"]) == root_of(room["borea"]) == new)
    assert room.status("borea").phase == "switched"  # atlas still shows one of the old CA
    room.back(room["atlas"])
    over(room)


def test_a_member_that_slept_through_the_whole_rollover_comes_by_itself(
    room: RolloverRoom,
) -> None:
    """It cannot verify anybody any more; the last words of the old CA name the new root."""
    room["pi"].down = True
    room.run(70_000)
    old = room.pin
    new = room.start().next_pin
    room.run(120_000, until=lambda: not room.status().lacking and room.status().trusting == 2)
    assert room.status().away == ("pi",)
    room.finish()
    room.run(70_000)
    assert [root_of(room[host]) for host in ("atlas", "borea")] == [new, new]
    assert room.status().phase == "switched"
    room.back(room["pi"])
    assert room.trusts(room["pi"]) == (old,)
    over(room)
    assert root_of(room["pi"]) == new


def test_the_old_ca_is_not_retired_before_the_last_certificate_of_it_has_ended(
    room: RolloverRoom,
) -> None:
    """A sleeper's certificate counts until it expires; then it has to join again anyway."""
    room["pi"].down = True
    room.run(70_000)
    room.start()
    room.run(120_000, until=lambda: room.status().trusting == 2)
    room.finish()
    room.run(90_000)
    assert room.status().phase == "switched"
    room.clock.jump_s += 31 * DAY_S
    room.run(5_000, until=lambda: room.status().phase == "none")


def test_whoever_stole_the_old_key_cannot_lead_a_node_back_to_it(room: RolloverRoom) -> None:
    """During the overlap certificates of the old CA count, its words on the roster do not."""
    old, new = started(room)
    state = room["atlas"].office.desk.state
    thief, pi = state.keys.issuer, room["pi"]
    assert thief is not None
    room.finish()
    room.run(90_000, until=lambda: room.trusts(pi) == (new, old))
    bundle = pi.office.desk.state.follow.bundle
    assert bundle is not None
    known = decode_body(encode_body(bundle), BundleBody)
    forged = BundleBody(
        mesh_id=known.mesh_id,
        pin=old,
        head=known.head,
        bundle_sequence=known.bundle_sequence + 1,
        key_holders=known.key_holders,
        revoked_serials=(),
        revoked_members=(),
    )
    raw = encode_body(sign_bundle(thief, forged))
    with pytest.raises(BundleRejectedError, match="has left"):
        pi.ask(Service.ROSTER_SYNC, InstallBundle(raw, "thief"), BundleInstalled)
    assert room.trusts(pi) == (new, old)


def test_after_the_end_the_old_ca_is_believed_by_nobody(room: RolloverRoom) -> None:
    """That is what the rollover was for."""
    old, _ = started(room)
    thief = room["atlas"].office.desk.state.keys.issuer
    assert thief is not None
    room.finish()
    over(room)
    pi = room["pi"]
    bundle = pi.office.desk.state.follow.bundle
    assert bundle is not None
    forged = SignedBundle(encode_body(bundle), thief.issuing_der, b"")
    forged = sign_bundle(thief, decode_body(forged.body, BundleBody))
    with pytest.raises(BundleRejectedError):
        pi.ask(Service.ROSTER_SYNC, InstallBundle(encode_body(forged), "thief"), BundleInstalled)
    assert old not in room.trusts(pi)


def test_a_switch_that_only_one_side_of_a_partition_saw_comes_home(room: RolloverRoom) -> None:
    """Atlas finishes and dies before borea has the row; borea leads, and takes the row over."""
    old, new = started(room)
    room.cut("atlas", "borea")
    room.finish()
    room["atlas"].down = True
    room.cuts.clear()
    room.run(60_000, until=lambda: room.serves(room["borea"]))
    assert room.pin == old
    room.back(room["atlas"])
    room.run(60_000, until=lambda: room.serves(room["borea"]) and room.pin == new)
    over(room)
    assert vault_pin(room["borea"]) == vault_pin(room["atlas"]) == new
