"""Renaming: the roster, the node that is renamed, and everything that goes on meanwhile."""

from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from broker.clock import wall_s
from broker.errors import ConflictError, NameNotAllowedError, NotFoundError
from broker.pki.statement import sign_name
from broker.shell.renaming import share_certificates
from broker.wire.claims import NameStatement, SignedName
from broker.wire.control import Ack
from broker.wire.events import RoleMoved, WorkAvailable
from broker.wire.ids import Service
from broker.wire.node import GetStatus, Membership, StatusView
from broker.wire.renewal import RenewalAnswer, RenewAsPeer
from broker.wire.roster import (
    GetMember,
    HeartbeatAnswer,
    ListMembers,
    MembersView,
    MemberView,
    NoteHeartbeat,
    RecordHeartbeat,
    ReinstateMember,
    RenameMember,
    RevocationAnswer,
    RevokeMember,
    WhoAmI,
    WhoAmIAnswer,
)
from broker.wire.work import LeaseWork, RenewOwn, WorkAnswer
from tests.shell.mesh_room import Room
from tests.shell.office import make_csr
from tests.shell.scenes import Make, fail_over


@pytest.fixture
def room(make: Make) -> Room:
    """Atlas leads; birch and cedar are members."""
    return make("birch", "cedar")


@pytest.fixture
def pair(room: Room) -> Room:
    """And birch is its standby."""
    room.nominate("birch")
    return room


def rename(room: Room, old: str, new: str, *, dry_run: bool = False) -> MemberView:
    """Rename as the operator."""
    request = RenameMember(old, new, "ann", dry_run)
    return room.primary().ask(Service.CONSOLE, request, MemberView)


def membership(room: Room, host: str) -> Membership:
    """Return what is on a node's disk."""
    raw = room[host].office.paths.membership.read_bytes()
    return msgspec.json.decode(raw, type=Membership)


def names_in(der: bytes) -> list[str]:
    """Return the DNS names of a certificate."""
    leaf = x509.load_der_x509_certificate(der)
    found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)


def test_a_renamed_member_keeps_its_identity_and_gets_the_names_of_the_new_one(room: Room) -> None:
    """Member id, addresses and extra names stay; what was made of the old name goes."""
    before = room["atlas"].office.ledger.member_by_host("cedar")
    view = rename(room, "cedar", "oak")
    after = room["atlas"].office.ledger.member_by_host("oak")
    assert before is not None
    assert after is not None
    assert (after.member_id, after.joined_at) == (before.member_id, before.joined_at)
    assert after.sans == ("oak.home.internal", "oak.local", "127.0.0.3") == view.member.sans
    assert after.endpoint.addresses == before.endpoint.addresses
    assert after.endpoint.server_name == "oak.home.internal"
    shown = room["atlas"].ask(Service.CONSOLE, ListMembers(), MembersView)
    assert [line.host for line in shown.members] == ["atlas", "birch", "oak"]


def test_a_dry_run_says_the_names_and_changes_nothing(room: Room) -> None:
    """An operator looks before every caller of that machine has to be told."""
    head = room["atlas"].office.ledger.head
    view = rename(room, "cedar", "oak", dry_run=True)
    assert (view.member.host, view.member.sans[0]) == ("oak", "oak.home.internal")
    assert room["atlas"].office.ledger.head == head


def test_a_member_takes_its_new_name_with_the_next_heartbeat(room: Room) -> None:
    """On disk first, so that a crash at any moment leaves it one name or the other."""
    room.run(2_000)
    rename(room, "cedar", "oak")
    cedar = room["cedar"]
    room.run(3_000, until=lambda: cedar.office.desk.state.host == "oak")
    kept = membership(room, "cedar")
    assert (kept.host, kept.server_name) == ("oak", "oak.home.internal")
    assert any(isinstance(event, RoleMoved) for event in cedar.office.events)
    assert WorkAvailable(Service.RENEWAL) in cedar.office.events
    cedar.restart()
    assert cedar.office.desk.state.host == "oak"
    assert cedar.role == "member"
    status = cedar.ask(Service.CONSOLE, GetStatus(), StatusView)
    assert status.node.host == "oak"


def test_a_renamed_member_renews_at_once_with_the_certificate_it_has(room: Room) -> None:
    """The certificate for the old name opens the door to the one for the new."""
    room.run(2_000)
    rename(room, "cedar", "oak")
    cedar = room["cedar"]
    room.run(3_000, until=lambda: cedar.office.desk.state.host == "oak")
    lease = cedar.ask(Service.RENEWAL, LeaseWork(), WorkAnswer).lease
    assert lease is not None
    assert isinstance(lease.item, RenewOwn)
    assert (lease.item.host, lease.item.sans) == ("oak", ("oak.home.internal",))
    certs = cedar.office.paths.certificates
    assert (certs / "oak" / "live" / "cert.pem").read_bytes() == (
        certs / "cedar" / "live" / "cert.pem"
    ).read_bytes()
    request = RenewAsPeer(cedar.peer, make_csr("oak"))
    issued = room["atlas"].ask(Service.GATEWAY, request, RenewalAnswer).issued
    assert names_in(issued.leaf) == ["oak.home.internal", "oak.local"]
    who = room["atlas"].ask(Service.GATEWAY, WhoAmI(cedar.peer), WhoAmIAnswer)
    assert who.host == "oak"


def test_a_renewal_that_failed_is_wanted_again_until_the_certificate_has_the_name(
    room: Room,
) -> None:
    """The order for it lives in memory: a crash must not end it."""
    room.run(2_000)
    rename(room, "cedar", "oak")
    cedar = room["cedar"]
    room.run(3_000, until=lambda: cedar.office.desk.state.host == "oak")
    cedar.restart()
    assert not cedar.office.desk.state.force_renewal
    room.run(3_000, until=lambda: cedar.office.desk.state.force_renewal)


def test_a_member_with_the_right_certificate_is_left_alone(room: Room) -> None:
    """Asking at every heartbeat must not mean renewing at every heartbeat."""
    room.run(4_000)
    assert not room["cedar"].office.desk.state.force_renewal


def test_a_standby_that_is_behind_renames_nobody_back(pair: Room) -> None:
    """It still has the old row; only the primary's word counts."""
    pair.run(2_000)
    pair.cut("atlas", "birch")
    rename(pair, "cedar", "oak")
    pair.run(3_000, until=lambda: pair["cedar"].office.desk.state.host == "oak")
    pair.run(2_000)
    assert membership(pair, "cedar").host == "oak"


def calling(room: Room, member: str, host: str, *, sequence: int = 10_000) -> HeartbeatAnswer:
    """Return an answer of atlas that calls a member something, signed by the issuing key."""
    issuer = room["atlas"].office.desk.state.keys.issuer
    assert issuer is not None
    known = membership(room, member)
    named = NameStatement(known.mesh_id, known.member_id, host, 1, sequence)
    return HeartbeatAnswer(True, None, 1, 0, wall_s(), 1000, named=sign_name(issuer, named))


def test_an_answer_that_was_recorded_renames_nobody_else(room: Room) -> None:
    """Who stole the primary's certificate knows what it said to one, and says it to another."""
    room.join("elm", 4)
    room.run(2_000)
    said = calling(room, "elm", "oak")
    room["cedar"].ask(Service.HEARTBEAT, NoteHeartbeat("atlas", said), Ack)
    assert membership(room, "cedar").host == "cedar"
    room["elm"].ask(Service.HEARTBEAT, NoteHeartbeat("atlas", said), Ack)
    assert membership(room, "elm").host == "oak"


def test_a_name_that_was_given_up_does_not_come_back_with_an_old_answer(room: Room) -> None:
    """Each word has its place in the journal, and only a later one counts."""
    room.run(2_000)
    cedar = room["cedar"]
    older, newer = (
        calling(room, "cedar", "oak"),
        calling(room, "cedar", "yew", sequence=10_001),
    )
    for answer, host in ((older, "oak"), (newer, "yew"), (older, "yew")):
        cedar.ask(Service.HEARTBEAT, NoteHeartbeat("atlas", answer), Ack)
        assert membership(room, "cedar").host == host


def test_an_unsigned_or_forged_name_is_not_taken(room: Room) -> None:
    """A certificate proves who speaks, not what the roster says."""
    room.run(2_000)
    signed = calling(room, "cedar", "oak").named
    assert signed is not None
    forged = SignedName(signed.body.replace(b"oak", b"elm"), signed.signature)
    answer = HeartbeatAnswer(True, None, 1, 0, wall_s(), 1000, named=forged)
    room["cedar"].ask(Service.HEARTBEAT, NoteHeartbeat("atlas", answer), Ack)
    assert membership(room, "cedar").host == "cedar"


def test_only_the_serving_primary_says_names(pair: Room) -> None:
    """What a standby has copied may be older than what the member has taken."""
    pair.run(2_000)
    cedar = pair["cedar"]
    rename(pair, "cedar", "oak")
    for host, named in {"atlas": True, "birch": False}.items():
        beat = RecordHeartbeat(
            peer=cedar.peer,
            pin="",
            served_serial="",
            served_not_after=None,
            served="unknown",
            endpoint=None,
            clock=wall_s(),
            bundle_sequence=0,
            term=1,
        )
        signed = pair[host].ask(Service.GATEWAY, beat, HeartbeatAnswer).named
        assert (signed is not None) == named


def test_a_name_counts_from_the_primary_that_is_followed_alone(pair: Room) -> None:
    """A key holder that was replaced goes on saying what it last knew."""
    pair.run(2_000)
    cedar = pair["cedar"]
    answer = calling(pair, "cedar", "oak")
    cedar.ask(Service.HEARTBEAT, NoteHeartbeat("birch", answer), Ack)
    assert membership(pair, "cedar").host == "cedar"
    cedar.ask(Service.HEARTBEAT, NoteHeartbeat("atlas", answer), Ack)
    assert membership(pair, "cedar").host == "oak"


@pytest.mark.parametrize("said", ["../../etc", "a/b", "oak\n", "*.oak", "x" * 300])
def test_a_name_that_is_a_path_never_becomes_a_directory(room: Room, said: str) -> None:
    """Defect 25: the primary is trusted with much, but not with this node's file system."""
    room.run(2_000)
    cedar = room["cedar"]
    answer = calling(room, "cedar", said)
    cedar.ask(Service.HEARTBEAT, NoteHeartbeat("atlas", answer), Ack)
    assert membership(room, "cedar").host == "cedar"
    assert sorted(entry.name for entry in cedar.office.paths.certificates.iterdir()) == ["cedar"]


def test_a_new_name_has_to_be_allowed_and_free(room: Room) -> None:
    """Defect 24: the policy holds for every way to a name, not for joining alone."""
    for new, refusal in {
        "oak.example.com": NameNotAllowedError,
        "Oak": NameNotAllowedError,
        "cedar": ConflictError,
        "atlas": ConflictError,
    }.items():
        with pytest.raises(refusal):
            rename(room, "cedar", new)
    with pytest.raises(NotFoundError):
        rename(room, "elm", "oak")
    assert room["atlas"].office.ledger.member_by_host("cedar") is not None


@pytest.mark.parametrize("host", ["atlas", "birch"])
def test_a_key_holder_is_not_renamed(pair: Room, host: str) -> None:
    """Beats, claims and key packages know it by its name; a change would look like an impostor."""
    with pytest.raises(ConflictError, match="known by their names"):
        rename(pair, host, "oak")


def test_a_revoked_name_is_not_given_away_by_renaming(room: Room) -> None:
    """The bar is lifted by saying so, not by a side door."""
    room.join("elm", 4)
    atlas = room["atlas"]
    atlas.ask(Service.CONSOLE, RevokeMember("elm", "stolen", "ann"), RevocationAnswer)
    with pytest.raises(ConflictError) as refused:
        rename(room, "cedar", "elm")
    assert "member reinstate elm" in refused.value.hint
    atlas.ask(Service.CONSOLE, ReinstateMember("elm", "ann"), Ack)
    assert rename(room, "cedar", "elm").member.host == "elm"


def test_a_name_that_was_given_up_can_be_taken_by_another_machine(room: Room) -> None:
    """Whoever comes next is somebody else, and a code or invite is enough."""
    rename(room, "cedar", "oak")
    room.join("elm", 4)
    assert rename(room, "elm", "cedar").member.host == "cedar"


def test_a_renaming_survives_a_failover(pair: Room) -> None:
    """The next primary calls the member by the same name."""
    rename(pair, "cedar", "oak")
    pair.run(2_000, until=lambda: pair.lag("birch") == 0)
    fail_over(pair)
    view = pair["birch"].ask(Service.CONSOLE, GetMember("oak"), MemberView)
    assert view.member.host == "oak"
    pair.run(3_000, until=lambda: pair["cedar"].office.desk.state.host == "oak")


def test_a_revocation_made_on_the_other_side_bars_the_name_here(pair: Room) -> None:
    """The old primary revoked cedar alone in its pair; after the merge a code is not enough."""
    pair.run(2_000)
    pair.cut("atlas", "birch")
    pair.cut("atlas", "cedar")
    pair["atlas"].ask(Service.CONSOLE, RevokeMember("cedar", "stolen", "ann"), RevocationAnswer)
    pair.run(14_000, until=lambda: pair.serves(pair["birch"]))
    pair.cuts.clear()
    pair.run(20_000, until=lambda: pair["birch"].office.ledger.bar_of("cedar") is not None)
    assert pair["birch"].office.ledger.member_by_host("cedar") is None


def test_certificates_are_found_under_both_names_and_strangers_are_set_aside(home: Path) -> None:
    """What was configured with the old path goes on; an earlier life's files never come back."""
    for host in ("nas", "files"):
        (home / host / "v0001").mkdir(parents=True)
        (home / host / "v0001" / "cert.pem").write_text(host)
        (home / host / "live").symlink_to("v0001")
    share_certificates(home, "nas", "files")
    assert (home / "files" / "live" / "cert.pem").read_text() == "nas"
    share_certificates(home, "nas", "files")
    share_certificates(home, "files", "media")
    share_certificates(home, "media", "nas")
    assert (home / "media" / "live" / "cert.pem").read_text() == "nas"
    assert (home / "nas" / "live" / "cert.pem").read_text() == "nas"
    aside = [entry for entry in home.iterdir() if entry.name.startswith("files.aside-")]
    assert [(entry / "live" / "cert.pem").read_text() for entry in aside] == ["files"]
