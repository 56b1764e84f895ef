"""CA rollover where something else goes wrong too: locks, crashes, retries, partitions."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.clock import boottime_ms, wall_s
from broker.errors import (
    BadPassphraseError,
    ConflictError,
    NotPrimaryError,
    ThrottledError,
    WithheldError,
)
from broker.ledger.sqlite import Ledger
from broker.pki.authority import create_authority, fingerprint
from broker.pki.chain import key_id_of, was_issued_by
from broker.pki.issuer import Issuer
from broker.pki.seal import open_root, open_with_passphrase
from broker.shell.issuers import issuers_of
from broker.shell.nextvault import exchange, find_aside, keep_aside, pins_aside
from broker.shell.vault import Vault, load_vault
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.base import Request
from broker.wire.control import Ack
from broker.wire.facts import (
    RolloverAborted,
    RolloverFinished,
    RolloverRetired,
    RolloverStarted,
)
from broker.wire.ids import Service
from broker.wire.renewal import RenewalAnswer, RenewAsPeer
from broker.wire.rollover import AbortRollover, FinishRollover, RolloverView, StartRollover
from broker.wire.standby import ListReviews, RemoveStandby, ReviewsView
from tests.pki.making import ca_profile
from tests.shell.mesh_room import Node, pushed_clock
from tests.shell.office import PASSPHRASE, make_csr
from tests.shell.rollover_room import RolloverRoom, root_of
from tests.shell.test_shell_rollover import aside, everybody_ready, over, started, vault_pin


@pytest.fixture
def room(home: Path) -> Iterator[RolloverRoom]:
    """Primary atlas, standby borea, member pi."""
    with pushed_clock() as clock:
        room = RolloverRoom.begin(home, clock, "borea", "pi")
        room.nominate("borea")
        yield room


def vault_of(node: Node) -> Vault:
    """Return the vault on a node's disk."""
    vault = load_vault(node.office.paths.authority)
    assert vault is not None
    return vault


def opens(vault: Vault) -> Issuer:
    """Return the issuer of a vault, opened by the passphrase of the mesh."""
    opened = open_with_passphrase(vault.sealed, PASSPHRASE.encode())
    return Issuer.open(root=vault.root, issuing=vault.issuing, issuing_key=opened.issuing_key)


def test_the_passphrase_of_the_mesh_opens_the_new_ca_on_every_key_holder(
    room: RolloverRoom,
) -> None:
    """The slots stay: nobody has to learn another secret because the CA was replaced."""
    _, new = started(room)
    room.finish()
    over(room)
    for host in ("atlas", "borea"):
        assert fingerprint(opens(vault_of(room[host])).root_der) == new


def test_the_root_keys_stay_where_they_were_made_until_the_old_one_is_destroyed(
    room: RolloverRoom,
) -> None:
    """Only the node that makes a CA has its root key; the old one goes with its root's trust."""
    old, _ = started(room)
    place = room["atlas"].office.paths.authority
    old_root = open_root(vault_of(room["atlas"]).sealed, PASSPHRASE.encode())
    room.finish()
    kept = find_aside(place, old)
    assert kept is not None
    assert open_root(kept.sealed, PASSPHRASE.encode()) == old_root
    assert open_root(vault_of(room["atlas"]).sealed, PASSPHRASE.encode()) != old_root
    assert not vault_of(room["borea"]).sealed.roots
    over(room)
    assert find_aside(place, old) is None


def test_a_mesh_whose_root_key_is_lost_gets_one_back_by_a_rollover(room: RolloverRoom) -> None:
    """The founder died; its standby leads without a root key, and makes a CA of its own."""
    room["atlas"].down = True
    room.run(60_000, until=lambda: room.serves(room["borea"]))
    room.primary().ask(Service.CONSOLE, RemoveStandby("atlas", "ann"), Ack)
    room.idle.clear()
    room.start()
    room.run(120_000, until=lambda: room.status().trusting == 2)
    room.finish()
    assert open_root(vault_of(room["borea"]).sealed, PASSPHRASE.encode())


def test_a_locked_standby_follows_too_and_opens_with_the_new_key(room: RolloverRoom) -> None:
    """The exchange needs no secret: the sealed key came with the row."""
    _, new = started(room)
    borea = room["borea"]
    borea.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    room.finish()
    room.run(10_000, until=lambda: vault_pin(borea) == new)
    assert fingerprint(opens(vault_of(borea)).root_der) == new


def test_a_locked_primary_cannot_switch(room: RolloverRoom) -> None:
    """Nobody could sign the bundle that says so: it serves no more."""
    started(room)
    room["borea"].down = True
    room["atlas"].ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    with pytest.raises(NotPrimaryError):
        room["atlas"].ask(Service.CONSOLE, FinishRollover("ann"), RolloverView)


def test_a_start_that_was_killed_before_its_row_leaves_nothing_to_the_next(
    room: RolloverRoom,
) -> None:
    """Its keys lie aside, no row names them: nobody trusts them, and they are destroyed."""
    atlas = room["atlas"]
    made = create_authority(ca_profile(), now=wall_s(), serials=(5, 6))
    present = vault_of(atlas)
    stray = Vault(made.root, made.issuing, present.sealed)
    keep_aside(atlas.office.paths.authority, stray)
    room.back(atlas)
    room.run(1_000)
    assert aside(atlas) == (fingerprint(made.root)[:16],)
    new = room.start().next_pin
    assert aside(atlas) == (new[:16],)


def test_a_start_whose_answer_was_lost_is_answered_again_and_makes_no_second_ca(
    room: RolloverRoom,
) -> None:
    """The link repeats it under its own id."""
    view = room.start()
    rows = room["atlas"].office.ledger.head.sequence
    identity = room["atlas"].office.introduce(Service.CONSOLE)
    request = StartRollover(PASSPHRASE.encode(), "ann")
    again = room["atlas"].office.send(identity, request, RolloverView, room.request_id)
    assert (again.next_pin, room["atlas"].office.ledger.head.sequence) == (view.next_pin, rows)


def test_wrong_passphrases_have_to_wait_after_a_while(room: RolloverRoom) -> None:
    """Starting a rollover must not be a way to try passphrases."""
    refused = []
    for _ in range(20):
        with pytest.raises((BadPassphraseError, ThrottledError)) as refusal:
            room.start("wrong horse battery staple")
        refused.append(refusal.type)
    assert (refused[0], refused[-1]) == (BadPassphraseError, ThrottledError)
    assert room.status().phase == "none"


def test_a_member_of_an_older_release_holds_the_switch_back(room: RolloverRoom) -> None:
    """It says nothing about what it trusts, so it trusts nothing but what it pins."""
    old, _ = started(room)
    pi = room["pi"]
    member = room["atlas"].office.ledger.member_by_host("pi")
    assert member is not None
    presence = room["atlas"].office.desk.state.presence
    room.say(pi, (old,))
    room.idle.add("pi")
    room.run(2_000)
    heard = presence.of(member.member_id)
    assert heard is not None
    assert heard.trusts == (old,)
    with pytest.raises(ConflictError, match="pi does not trust"):
        room.finish()


def test_a_lost_answer_across_the_switch_comes_with_the_chain_it_was_signed_under(
    room: RolloverRoom,
) -> None:
    """The same certificate again: with the other CA's chain no host could install it."""
    started(room)
    pi, csr = room["pi"], make_csr("pi")
    room.run(20_000)
    request = RenewAsPeer(pi.peer, csr)
    first = room["atlas"].ask(Service.GATEWAY, request, RenewalAnswer).issued
    room.idle.add("pi")
    room.finish()
    room.run(1_000)
    again = room["atlas"].ask(Service.GATEWAY, request, RenewalAnswer).issued
    assert (again.leaf, again.issuing, again.root) == (first.leaf, first.issuing, first.root)
    assert was_issued_by(again.leaf, key_id_of(again.issuing))


def test_of_two_rollovers_from_both_sides_of_a_partition_one_stays_and_one_is_listed(
    room: RolloverRoom,
) -> None:
    """The one of the primary that leads afterwards; a person reads what became of the other."""
    atlas, borea = room["atlas"], room["borea"]
    room.cut("atlas", "borea")
    room.cut("atlas", "pi")
    append_start(room, atlas)
    room.run(60_000, until=lambda: borea.office.desk.state.serves)
    kept = append_start(room, borea)
    room.cuts.clear()
    room.run(
        60_000, until=lambda: [n.host for n in room.nodes.values() if room.serves(n)] == ["borea"]
    )
    room.run(20_000)
    assert room.status().next_pin == kept
    (review,) = room.primary().ask(Service.CONSOLE, ListReviews(), ReviewsView).reviews
    assert review.kind == "rollover"


def append_start(room: RolloverRoom, node: Node) -> str:
    """Write the row of a rollover at a node, whatever powers it has; return the new pin."""
    room.clock.push(2_000)
    state = node.office.desk.state
    vault, mesh = vault_of(node), state.ledger.mesh()
    assert mesh is not None
    made = create_authority(ca_profile(), now=wall_s(), serials=(5, secrets.randbits(60)))
    fact = RolloverStarted(
        root=made.root,
        issuing=made.issuing,
        pin=fingerprint(made.root),
        retiring_pin=mesh.pin,
        retiring_root=vault.root,
        retiring_issuing=vault.issuing,
        nonce=vault.sealed.issuing_key.nonce,
        ciphertext=vault.sealed.issuing_key.ciphertext,
    )
    batch = node.office.desk.open_batch()
    batch.append(fact, "ann", opening=True)
    node.office.desk.finish(batch, [])
    return fact.pin


@pytest.mark.parametrize("step", ["start", "finish", "abort"])
def test_an_isolated_primary_takes_no_step(room: RolloverRoom, step: str) -> None:
    """Another primary may exist unseen, and two next CAs do not merge."""
    if step != "start":
        started(room)
    room.cut("atlas", "borea")
    room.cut("atlas", "pi")
    room.run(30_000, until=lambda: room["atlas"].phase == "isolated" or not powers(room))
    before = room["atlas"].office.ledger.head.sequence
    with pytest.raises(WithheldError):
        ask_atlas(room, step)
    assert room["atlas"].office.ledger.head.sequence == before


def powers(room: RolloverRoom) -> bool:
    """Whether atlas may do everything a primary may."""
    state = room["atlas"].office.desk.state
    try:
        state.full_powers(boottime_ms())
    except WithheldError:
        return False
    return True


def ask_atlas(room: RolloverRoom, step: str) -> RolloverView:
    """Ask for a step at atlas, whoever else serves."""
    requests: dict[str, Request] = {
        "start": StartRollover(PASSPHRASE.encode(), "ann"),
        "finish": FinishRollover("ann"),
        "abort": AbortRollover("ann"),
    }
    return room["atlas"].ask(Service.CONSOLE, requests[step], RolloverView)


def test_the_old_ca_is_not_retired_by_a_primary_that_hears_nobody(room: RolloverRoom) -> None:
    """It does not know what the others show by now."""
    started(room)
    room.idle.add("pi")
    room.finish()
    room.run(20_000)
    room.cut("atlas", "borea")
    room.cut("atlas", "pi")
    room.run(30_000, until=lambda: not powers(room))
    room.clock.jump_s += 31 * 86_400
    room.clock.push(1_500)
    room["atlas"].tick()
    events = room["atlas"].office.ledger.audit(0, 500)
    assert not [row for row in events if row.event == "ca.rollover_retired"]
    assert room["atlas"].office.desk.state.rollover() is not None


def test_a_vault_with_a_root_key_is_exchanged_only_when_a_copy_lies_aside(
    room: RolloverRoom,
) -> None:
    """The root key exists once; the exchange itself puts the copy there first."""
    old, new = started(room)
    place = room["atlas"].office.paths.authority
    wanted = find_aside(place, new)
    assert wanted is not None
    exchange(place, wanted)
    assert sorted(pins_aside(place)) == sorted((old[:16], new[:16]))
    kept = find_aside(place, old)
    assert kept is not None
    assert kept.sealed.roots


def test_steps_that_do_not_fit_their_phase_are_contradictions(home: Path) -> None:
    """The verbs look first; a row that contradicts the ledger would be a bug of ours."""
    ledger = Ledger.open(home / "ledger.db", node="atlas")
    ledger.begin()
    for fact in (RolloverFinished("aa", "bb"), RolloverAborted("aa")):
        with pytest.raises(ValueError, match="phase"):
            ledger.append(fact, actor="ann", now=wall_s())
    ledger.rollback()
    ledger.close()


def test_beats_of_the_next_ca_are_known_before_the_first_one_comes(room: RolloverRoom) -> None:
    """A member learns its issuing certificate from the bundle, a standby from the rows as well."""
    started(room)
    state = room["borea"].office.desk.state
    both = set(issuers_of(state))
    assert len(both) == 2
    assert set(issuers_of(room["pi"].office.desk.state)) == both
    state.follow.bundle, state.follow.bundle_bytes = None, b""
    assert set(issuers_of(state)) == both


def test_a_clock_behind_the_present_ca_starts_nothing(room: RolloverRoom) -> None:
    """Nodes move to a younger root only: they would never follow."""
    room.clock.jump_s -= 86_400
    with pytest.raises(ConflictError, match="clock"):
        room.start()


def test_everybody_is_heard_through_all_phases(room: RolloverRoom) -> None:
    """No beat is lost: the election sees a living primary whichever CA signs its beats."""
    started(room)
    terms = {room.primary().office.desk.state.term}
    room.finish()
    over(room)
    everybody = {node.office.desk.state.term for node in room.nodes.values()}
    assert everybody | terms == {1}
    assert room.primary().host == "atlas"


def test_a_member_that_joins_after_the_switch_pins_the_new_root(room: RolloverRoom) -> None:
    """It never trusts the old one longer than the bundle says."""
    _, new = started(room)
    room.finish()
    room.run(2_000)
    ant = room.join("ant", 9)
    assert room.trusts(ant) == (new,)


def test_a_standby_nominated_during_a_rollover_gets_both_keys(room: RolloverRoom) -> None:
    """The key in force comes sealed to it, the next one with the journal."""
    started(room)
    room.nominate("pi")
    everybody_ready(room)
    room.finish()
    over(room)
    assert vault_pin(room["pi"]) == room.pin


def test_the_old_ca_is_retired_once(room: RolloverRoom) -> None:
    """The row is written when it is over, not every second after."""
    started(room)
    room.finish()
    over(room)
    room.run(10_000)
    rows = room["atlas"].office.ledger.audit(0, 500)
    tags = [row.event for row in rows]
    assert tags.count(str(RolloverRetired.__struct_config__.tag)) == 1


def test_a_sleeper_gets_the_last_words_also_when_nobody_asked_since_the_switch(
    home: Path,
) -> None:
    """A primary signs a bundle when it is asked for one: here the sleeper is the first."""
    with pushed_clock() as clock:
        room = RolloverRoom.begin(home, clock, "pi")
        room["pi"].down = True
        room.run(70_000)
        new = room.start().next_pin
        room.run(30_000, until=lambda: room.status().trusting == 1)
        room.finish()
        room.run(15_000, until=lambda: root_of(room["atlas"]) == new)
        room.back(room["pi"])
        over(room)
