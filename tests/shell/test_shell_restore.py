"""A backup and a kit make the same mesh again, and nothing that was revoked comes back with it."""

from pathlib import Path

import msgspec
import pytest

from broker.clock import boottime_ms
from broker.core.observation import Observation, Version
from broker.core.phases import Phase
from broker.errors import (
    BackupRejectedError,
    BadPassphraseError,
    BundleRejectedError,
    MeshExistsError,
    NotPrimaryError,
    RevokedError,
    WithheldError,
)
from broker.ledger.sqlite import Ledger
from broker.pki.container import SignedHeader, read_header, trailer
from broker.pki.seal import open_root, open_with_passphrase
from broker.shell.backup_file import read_end
from broker.shell.restored import restored_warning
from broker.shell.succession import hear
from broker.shell.vault import load_vault
from broker.units import UnixSeconds
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.backup import NoteCollected
from broker.wire.claims import Gossip, Head
from broker.wire.codec import decode_fact, encode_body
from broker.wire.control import Ack
from broker.wire.enrollment import CreateInvite, InviteView
from broker.wire.facts import BackupRestored, FailoverPromoted
from broker.wire.ids import Service
from broker.wire.node import GetStatus, StatusView
from broker.wire.roster import (
    BundleAnswer,
    GetBundle,
    Peer,
    RevocationAnswer,
    RevokeMember,
    WhoAmI,
    WhoAmIAnswer,
)
from broker.wire.standby import PromoteHere, PromotionAnswer, RemoveStandby
from tests.shell.backup_desk import Home, backed_up, collect, come_back, reborn
from tests.shell.mesh_room import Node, Room
from tests.shell.office import PASSPHRASE, Office, office_settings
from tests.shell.scenes import Make, events, fail_over


def revoke(room: Room, host: str) -> None:
    """Revoke a member at the primary, and let the others hear of it."""
    wish = RevokeMember(host=host, reason="stolen", operator="ann", dry_run=False)
    room.primary().ask(Service.CONSOLE, wish, RevocationAnswer)
    room.run(3_000)


def kit_of(node: Node) -> str:
    """Return the recovery secret as it was printed."""
    return node.office.creation.recovery


def fact_of(node: Node, event: str) -> object:
    """Return the newest fact of that name in a journal."""
    rows = [row for row in node.office.ledger.audit(0, 1000) if row.event == event]
    return decode_fact(rows[-1].payload)


def test_file_and_kit_alone_make_the_mesh_again_on_a_new_machine(make: Make) -> None:
    """Passphrase forgotten, disk burnt: this is what the kit is for."""
    room = make("cedar")
    before = room["atlas"].office
    file, incarnation = backed_up(before), before.ledger.incarnation
    atlas = reborn(room, file, kit_of(room["atlas"]))
    come_back(room, atlas)
    ledger = atlas.office.ledger
    assert atlas.office.desk.state.keys.state == "unlocked"
    assert ledger.term == 2
    assert ledger.incarnation != incarnation
    assert ledger.verify_chain()[2] is None
    assert ledger.differing_projections() == ()


def test_the_audit_trail_goes_on_and_says_what_happened(make: Make) -> None:
    """The first row of the new term says why, the next ones who was asked (P16)."""
    room = make("cedar", "dill")
    room.run(2_000)
    file = backed_up(room["atlas"].office)
    rows = events(room, "atlas")
    atlas = reborn(room, file, kit_of(room["atlas"]))
    room["dill"].down = True
    come_back(room, atlas)
    trail = events(room, "atlas")
    at = trail.index("failover.promoted")
    assert trail[:at] == rows[:at]
    promoted, restored = fact_of(atlas, "failover.promoted"), fact_of(atlas, "backup.restored")
    assert isinstance(promoted, FailoverPromoted)
    assert promoted.cause == "restored"
    assert isinstance(restored, BackupRestored)
    assert (restored.asked, restored.answered) == (2, 1)
    assert "dill" in promoted.evidence


def test_defect_34_who_was_revoked_after_the_backup_stays_revoked(make: Make) -> None:
    """The reference brings revoked hosts back; here the living tell of them (P5, P16)."""
    room = make("cedar", "dill")
    file = backed_up(room["atlas"].office)
    revoke(room, "dill")
    atlas = reborn(room, file, kit_of(room["atlas"]))
    come_back(room, atlas)
    assert atlas.office.ledger.member_by_host("dill") is None
    with pytest.raises(RevokedError):
        atlas.ask(Service.GATEWAY, WhoAmI(room["dill"].peer), WhoAmIAnswer)
    assert fact_of(atlas, "backup.restored").revoked == 1  # type: ignore[attr-defined]


def test_defect_34_a_member_that_the_backup_never_knew_stays_out_for_good(make: Make) -> None:
    """Joined and revoked after the backup: its serial alone is known, and that is enough."""
    room = make("cedar")
    file = backed_up(room["atlas"].office)
    room.join("dill", 7)
    room.run(2_000)
    revoke(room, "dill")
    atlas = reborn(room, file, kit_of(room["atlas"]))
    come_back(room, atlas)
    stranger = room["dill"].peer
    with pytest.raises(RevokedError):
        atlas.ask(Service.GATEWAY, WhoAmI(stranger), WhoAmIAnswer)
    atlas.ask(Service.GATEWAY, GetBundle(), BundleAnswer)
    signed = atlas.office.desk.state.follow.bundle
    assert signed is not None
    assert (signed.head.term, stranger.serial in signed.revoked_serials) == (2, True)
    atlas.office.crash()
    assert stranger.serial in atlas.office.desk.state.follow.still_revoked


def test_defect_34_history_is_never_overwritten(make: Make) -> None:
    """A node that belongs to a mesh refuses, whatever the file; nothing is touched."""
    room = make()
    office = room["atlas"].office
    file = backed_up(office)
    home = Home(office.settings, office.paths)
    before = home.state()
    with pytest.raises(MeshExistsError):
        home.restore(file, office.creation.recovery)
    assert home.state() == before


def test_nothing_is_signed_or_served_before_the_members_were_asked(make: Make) -> None:
    """A restored CA that serves at once would sign for whom it should refuse (row 53, P4, P16)."""
    room = make("cedar")
    file = backed_up(room["atlas"].office)
    revoke(room, "cedar")
    atlas = reborn(room, file, kit_of(room["atlas"]))
    for _ in range(60):
        room.clock.push(1_000)
        atlas.tick()
        assert not room.serves(atlas)
    assert atlas.phase == Phase.PENDING
    with pytest.raises(NotPrimaryError, match="restored from a backup"):
        atlas.ask(Service.CONSOLE, CreateInvite("ab" * 32, "elm", (), 60, "ann"), InviteView)
    held = atlas.ask(Service.GATEWAY, GetBundle(), BundleAnswer)
    assert held.term == 1
    assert "failover.promoted" not in events(room, "atlas")


def test_a_broker_that_dies_while_it_asks_asks_again(make: Make) -> None:
    """The mark is durable; answers in memory are not."""
    room = make("cedar", "dill")
    file = backed_up(room["atlas"].office)
    atlas = reborn(room, file, kit_of(room["atlas"]))
    assert collect(room, atlas) == ("cedar", "dill")
    atlas.office.crash()
    atlas.ticks = type(atlas.ticks)(atlas.office.desk.state)
    assert not room.serves(atlas)
    come_back(room, atlas)
    atlas.office.crash()
    assert atlas.office.desk.state.serves
    assert events(room, "atlas").count("backup.restored") == 1


def test_a_member_that_never_answers_does_not_block_for_ever_and_is_named(make: Make) -> None:
    """A dead laptop must not keep the mesh without a CA; a person has to know what is missing."""
    room = make("cedar", "dill")
    room.run(2_000)
    file = backed_up(room["atlas"].office)
    atlas = reborn(room, file, kit_of(room["atlas"]))
    room["dill"].down = True
    come_back(room, atlas, ms=30_000)
    assert "dill" in restored_warning(atlas.office.desk.state)
    status = atlas.ask(Service.CONSOLE, GetStatus(), StatusView)
    assert any("without a word from dill" in text for text in status.warnings)


def test_members_follow_the_restored_primary_into_its_new_term(make: Make) -> None:
    """Their memory of the lost rows is of the old term; the new one is above it (row 53, P7)."""
    room = make("cedar", "dill")
    file = backed_up(room["atlas"].office)
    revoke(room, "dill")
    atlas = reborn(room, file, kit_of(room["atlas"]))
    come_back(room, atlas)
    room._certify_founder(atlas)
    room.run(5_000)
    cedar = room["cedar"].office.desk.state
    assert cedar.term == 2
    assert cedar.follow.bundle is not None
    assert cedar.follow.bundle.head.term == 2
    assert room["dill"].peer.serial in cedar.follow.bundle.revoked_serials


def test_a_certificate_of_the_lost_rows_still_lets_its_member_in(make: Make) -> None:
    """A week-old backup knows no renewal of that week; refusing them all would be an outage."""
    room = make("cedar")
    file = backed_up(room["atlas"].office)
    atlas = reborn(room, file, kit_of(room["atlas"]))
    old = room["cedar"].peer
    renewed = Peer("77" * 16, "cedar", "ab" * 32, old.not_after)
    come_back(room, atlas)
    answer = atlas.ask(Service.GATEWAY, WhoAmI(renewed), WhoAmIAnswer)
    assert answer.member_id == atlas.office.ledger.member_by_host("cedar").member_id  # type: ignore[union-attr]
    for wrong in (
        Peer("77" * 16, "elm", "ab" * 32, old.not_after),
        Peer("77" * 16, "cedar", "ab" * 32, old.not_after + 40 * 86_400),  # type: ignore[arg-type]  # seconds
    ):
        with pytest.raises(Exception, match="not in the roster"):
            atlas.ask(Service.GATEWAY, WhoAmI(wrong), WhoAmIAnswer)


def test_a_living_primary_of_a_later_term_is_never_joined_by_a_second_one(room: Room) -> None:
    """A standby took over, and somebody restores the old primary all the same."""
    file = backed_up(room["atlas"].office)
    fail_over(room)
    room.run(3_000)
    atlas = reborn(room, file, kit_of(room["atlas"]))
    for _ in range(90):
        room.clock.push(1_000)
        collect(room, atlas)
        for node in room.nodes.values():
            node.tick()
        assert not room.serves(atlas)
    assert "birch leads in term 2" in restored_warning(atlas.office.desk.state)
    with pytest.raises(WithheldError):
        atlas.ask(Service.CONSOLE, PromoteHere("ann", True, False), PromotionAnswer)
    assert load_vault(atlas.office.paths.authority) is not None


def test_a_dead_primary_of_a_later_term_needs_a_person(room: Room) -> None:
    """Nobody can tell a dead birch from a cut cable; who knows that it burnt says so."""
    file = backed_up(room["atlas"].office)
    fail_over(room)
    room.run(3_000)
    room["birch"].down = True
    atlas = reborn(room, file, kit_of(room["atlas"]))
    for _ in range(40):
        room.clock.push(1_000)
        collect(room, atlas)
        atlas.tick()
        assert not room.serves(atlas)
    assert "standby promote --force" in restored_warning(atlas.office.desk.state)
    with pytest.raises(WithheldError):
        atlas.ask(Service.CONSOLE, PromoteHere("ann", False, False), PromotionAnswer)
    atlas.ask(Service.CONSOLE, PromoteHere("ann", True, False), PromotionAnswer)
    assert room.serves(atlas)
    assert atlas.office.ledger.term == 3


def test_a_new_passphrase_opens_everything_the_old_one_opened(make: Make) -> None:
    """Who forgot the passphrase must not stay without the root key."""
    room = make()
    office = room["atlas"].office
    file = backed_up(office)
    home = Home.empty(room.home / "new", office.settings)
    fresh = "correct horse battery staple"
    home.restore(file, office.creation.recovery, new_passphrase=fresh)
    vault = load_vault(home.paths.authority)
    assert vault is not None
    assert open_with_passphrase(vault.sealed, fresh.encode()).issuing_key
    assert open_root(vault.sealed, fresh.encode()) == open_root(vault.sealed, PASSPHRASE.encode())


def test_the_lost_machines_own_slots_do_not_come_along(make: Make) -> None:
    """Whoever has the stolen box has its credential file: it must not open the new one."""
    room = make()
    office = room["atlas"].office
    stolen = office.paths.credential.read_bytes()
    file = backed_up(office)
    home = Home.empty(room.home / "new", office.settings)
    home.restore(file, office.creation.recovery)
    assert home.paths.credential.read_bytes() != stolen
    vault = load_vault(home.paths.authority)
    assert vault is not None
    assert len([slot for slot in vault.sealed.slots if slot.kind == "credential"]) == 1


def test_a_rehearsal_opens_and_checks_everything_and_changes_nothing(make: Make) -> None:
    """A backup that was never opened is a hope."""
    room = make("cedar")
    office = room["atlas"].office
    rows = office.ledger.head.sequence
    file = backed_up(office)
    home = Home.empty(room.home / "new", office.settings)
    told = home.restore(file, office.creation.recovery, verify_only=True)
    assert (told.rows, told.members, told.opened, told.signed) == (rows, 2, True, True)
    assert home.state() == {}
    blind = home.restore(file, "", verify_only=True)
    assert (blind.opened, blind.sequence) == (False, rows)


def test_a_wrong_kit_is_told_from_a_wrong_letter(make: Make, home: Path) -> None:
    """Which of the two it is decides what a person does next."""
    room = make()
    office = room["atlas"].office
    file = backed_up(office)
    other = home / "other"
    other.mkdir()
    foreign = Office.create(other).creation.recovery
    new = Home.empty(home / "new", office.settings)
    with pytest.raises(BadPassphraseError, match="another kit"):
        new.restore(file, foreign)
    kit = office.creation.recovery
    with pytest.raises(BadPassphraseError, match="typing error"):
        new.restore(file, ("A" if kit[0] != "A" else "B") + kit[1:])
    assert new.state() == {}


def test_an_unsigned_backup_is_restored_only_when_a_person_says_so(make: Make) -> None:
    """The public recovery key is in every backup: anybody can seal something to it."""
    room = make()
    office = room["atlas"].office
    office.ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    file = backed_up(office)
    home = Home.empty(room.home / "new", office.settings)
    with pytest.raises(BackupRejectedError, match="not signed"):
        home.restore(file, office.creation.recovery)
    home.restore(file, office.creation.recovery, unsigned=True)
    assert home.paths.membership.exists()


def test_a_journal_put_into_a_genuine_backup_is_refused(make: Make) -> None:
    """An attacker with an old backup and the public key cannot pass another journal off as ours.

    (row 50)
    """
    room = make()
    office = room["atlas"].office
    file = backed_up(office)
    signed, size = read_end(file)
    header = read_header(signed.header)
    forged = encode_body(msgspec.structs.replace(header, sequence=header.sequence + 1))
    raw = file.read_bytes()
    file.write_bytes(raw[: 16 + size] + trailer(SignedHeader(forged)))
    home = Home.empty(room.home / "new", office.settings)
    with pytest.raises(BackupRejectedError, match="header of this backup has been changed"):
        home.restore(file, office.creation.recovery, unsigned=True)
    assert home.state() == {}


@pytest.mark.timeout(120)
def test_no_change_of_a_backup_gets_anything_written(home: Path) -> None:
    """Authenticated before parsed: three hundred flips, not one file (row 50)."""
    office = Office.create(home)
    file = backed_up(office)
    octets = file.read_bytes()
    new = Home.empty(home / "new", office_settings())
    for number in range(300):
        at = number * (len(octets) - 1) // 299
        file.write_bytes(octets[:at] + bytes([octets[at] ^ 0x10]) + octets[at + 1 :])
        with pytest.raises((BackupRejectedError, BadPassphraseError)):
            new.restore(file, office.creation.recovery)
    assert new.state() == {}


def test_a_restored_standby_waits_for_the_primary_it_followed(room: Room) -> None:
    """The backup of a standby is as good as the primary's; who leads with it is a person's word."""
    birch = room["birch"]
    file = backed_up(birch.office)
    room["atlas"].down = True
    again = reborn(room, file, kit_of(birch), "birch")
    for _ in range(40):
        room.clock.push(1_000)
        collect(room, again)
        again.tick()
        assert not room.serves(again)
    again.ask(Service.CONSOLE, PromoteHere("ann", True, False), PromotionAnswer)
    assert room.serves(again)
    assert again.office.desk.state.keys.state == "unlocked"


def test_two_restored_copies_never_share_a_stamp(make: Make) -> None:
    """Each writes rows under a name of its own, so that a merge can tell them apart.

    (row 53, P16)
    """
    office = make()["atlas"].office
    file = backed_up(office)
    names = {office.ledger.incarnation}
    for number in range(2):
        home = Home.empty(office.paths.home / f"new{number}", office.settings)
        home.restore(file, office.creation.recovery)
        ledger = Ledger.open(home.paths.ledger, node="atlas")
        names.add(ledger.incarnation)
        ledger.close()
    assert len(names) == 3


def test_what_members_remember_of_the_lost_rows_is_no_alarm_and_anything_else_is(
    make: Make,
) -> None:
    """The gap is written down once, by the restoration; a changed row before it is tampering."""
    room = make("cedar")
    room.run(2_000)
    file = backed_up(room["atlas"].office)
    rows = room["atlas"].office.ledger.head.sequence
    room.join("dill", 7)
    room.run(3_000)
    atlas = reborn(room, file, kit_of(room["atlas"]))
    come_back(room, atlas)
    book = atlas.office.desk.state.restored
    assert book is not None
    lost = Head(1, rows + 3, "ab" * 32, "atlas", UnixSeconds(0))
    assert book.explains(lost)
    assert not book.explains(msgspec.structs.replace(lost, sequence=2))
    assert not book.explains(msgspec.structs.replace(lost, term=2))
    room._certify_founder(atlas)
    room.run(20_000)
    assert "audit.broken" not in events(room, "atlas")


def test_a_bundle_of_another_ca_is_no_answer_and_tells_nothing(make: Make, home: Path) -> None:
    """Whoever stands at the address of a member may say what he likes."""
    room = make("cedar")
    room.run(2_000)
    file = backed_up(room["atlas"].office)
    atlas = reborn(room, file, kit_of(room["atlas"]))
    other = home / "other"
    other.mkdir()
    foreign = Office.create(other).ask(Service.GATEWAY, GetBundle(), BundleAnswer).bundle
    assert foreign
    collecting = atlas.office.desk.state.restored
    assert collecting is not None
    for _ in range(3):
        with pytest.raises(BundleRejectedError):
            atlas.ask(Service.ROSTER_SYNC, NoteCollected("cedar", foreign), Ack)
    assert (collecting.collecting.silent, collecting.collecting.verdict) == (("cedar",), "go")
    assert collecting.collecting.serials == set()


def test_a_restored_node_that_lost_its_role_meanwhile_does_not_drop_its_key(room: Room) -> None:
    """The living may have removed it; if they burn too, its key is the last one there is."""
    file = backed_up(room["atlas"].office)
    fail_over(room)
    room.primary().ask(Service.CONSOLE, RemoveStandby("atlas", "ann"), Ack)
    room.run(3_000)
    atlas = reborn(room, file, kit_of(room["atlas"]))
    collect(room, atlas)
    batch = atlas.office.desk.open_batch()
    seen = Observation("birch", head=Version(2, 0))
    hear(atlas.office.desk.state, batch, seen, Gossip(), boottime_ms())
    atlas.office.desk.finish(batch, [])
    assert atlas.phase == Phase.FOLLOWING
    for _ in range(5):
        room.clock.push(1_000)
        atlas.tick()
    assert load_vault(atlas.office.paths.authority) is not None
    assert atlas.office.desk.state.keys.vault is not None
