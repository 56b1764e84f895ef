"""A revocation's reach: who refuses the member already, who does not yet, and that they refuse."""

import msgspec
import pytest

from broker.clock import wall_s
from broker.errors import ConflictError, RevokedError
from broker.wire.base import Reply, Request
from broker.wire.control import Ack
from broker.wire.facts import MemberJoined
from broker.wire.ids import Service
from broker.wire.node import Endpoint
from broker.wire.renewal import RenewalAnswer, RenewAsPeer, StartRekey
from broker.wire.roster import (
    BundleAnswer,
    GetBundle,
    GetReach,
    HeartbeatAnswer,
    Peer,
    RecordHeartbeat,
    RevocationAnswer,
    RevokeMember,
    WhoAmI,
    WhoAmIAnswer,
)
from tests.shell.mesh_room import Room
from tests.shell.office import make_csr
from tests.shell.scenes import Make


def revoke(room: Room, host: str, *, dry_run: bool = False) -> RevocationAnswer:
    """Revoke a member at the primary."""
    request = RevokeMember(host, "stolen", "ann", dry_run)
    return room.primary().ask(Service.CONSOLE, request, RevocationAnswer)


def reach(room: Room, host: str) -> RevocationAnswer:
    """Ask how far a revocation has come."""
    return room.primary().ask(Service.CONSOLE, GetReach(host), RevocationAnswer)


@pytest.fixture
def crowd(make: Make) -> Room:
    """Atlas leads three members that have all been heard."""
    room = make("birch", "cedar", "dune")
    room.run(3_000)
    return room


def test_a_revocation_names_who_lacks_it_and_who_is_away(crowd: Room) -> None:
    """The operator has to know which door still opens for a stolen key."""
    crowd["cedar"].down = True
    crowd.run(5_000)
    answer = revoke(crowd, "dune")
    assert (answer.enforced_by, answer.members) == (1, 3)
    assert (answer.lacking, answer.away) == (("birch",), ("cedar",))

    crowd.run(3_000, until=lambda: not reach(crowd, "dune").lacking)
    now = reach(crowd, "dune")
    assert (now.enforced_by, now.lacking, now.away) == (2, (), ("cedar",))
    assert now.serials == answer.serials


def test_a_dry_run_says_that_nobody_enforces_it_yet(crowd: Room) -> None:
    """It changes nothing, so nothing refuses."""
    answer = revoke(crowd, "dune", dry_run=True)
    assert (answer.enforced_by, answer.lacking) == (0, ("birch", "cedar"))


def test_the_reach_of_no_revocation_is_refused(crowd: Room) -> None:
    """An answer would read as if everybody refused an active member."""
    with pytest.raises(ConflictError, match="not revoked"):
        reach(crowd, "dune")


def test_an_answer_about_a_large_mesh_is_bounded(crowd: Room) -> None:
    """200 names are enough to look at; a longer answer would not fit into a message."""
    ledger = crowd["atlas"].office.ledger
    now = wall_s()
    ledger.begin()
    for number in range(250):
        ledger.append(joined(f"h{number}", f"{number:032x}"), actor="ann", now=now)
    ledger.commit()
    answer = revoke(crowd, "dune")
    assert len(answer.away) == 200
    assert answer.members == 253


def joined(host: str, member_id: str) -> MemberJoined:
    """Return the row of a member."""
    doors = Endpoint(host, ("127.0.0.200",), 7642, 7643, f"{host}.home.internal")
    return MemberJoined(member_id, host, (host,), "member", doors, "invite")


def open_questions(peer: Peer, beat: RecordHeartbeat) -> list[tuple[Request, type[Reply]]]:
    """Return what a member asks over its open connections."""
    return [
        (msgspec.structs.replace(beat, peer=peer), HeartbeatAnswer),
        (WhoAmI(peer), WhoAmIAnswer),
        (GetBundle(0, peer), BundleAnswer),
        (RenewAsPeer(peer, make_csr(peer.host)), RenewalAnswer),
    ]


def a_beat(room: Room, host: str = "dune") -> RecordHeartbeat:
    """Return a heartbeat."""
    state = room["atlas"].office.desk.state
    assert state.membership is not None
    return RecordHeartbeat(
        peer=room[host].peer,
        pin=state.membership.pin,
        served_serial="",
        served_not_after=None,
        served="unknown",
        endpoint=None,
        clock=wall_s(),
        bundle_sequence=0,
        term=1,
    )


def test_the_primary_refuses_a_revoked_member_on_the_very_next_request(crowd: Room) -> None:
    """Open connections included: every request asks the broker, and the broker asks the roster.

    (P5)
    """
    dune, beat = crowd["dune"].peer, a_beat(crowd)
    revoke(crowd, "dune")
    for request, kind in open_questions(dune, beat):
        with pytest.raises(RevokedError):
            crowd["atlas"].ask(Service.GATEWAY, request, kind)


def test_a_member_refuses_a_revoked_member_as_soon_as_it_has_the_bundle(crowd: Room) -> None:
    """A plain member has no roster: its signed bundle is what its own door goes by (P5)."""
    dune = crowd["dune"].peer
    before = crowd["birch"].ask(Service.GATEWAY, GetBundle(0, dune), BundleAnswer)
    assert before.bundle
    revoke(crowd, "dune")
    crowd.run(3_000, until=lambda: not reach(crowd, "dune").lacking)
    with pytest.raises(RevokedError):
        crowd["birch"].ask(Service.GATEWAY, GetBundle(0, dune), BundleAnswer)
    with pytest.raises(RevokedError):
        crowd["birch"].ask(Service.GATEWAY, StartRekey(dune, 1), Ack)
    crowd["birch"].restart()
    with pytest.raises(RevokedError):
        crowd["birch"].ask(Service.GATEWAY, GetBundle(0, dune), BundleAnswer)


def test_a_standby_refuses_a_revoked_member_by_its_rows(room: Room) -> None:
    """Rows reach a standby before any bundle does (P5)."""
    cedar = room["cedar"].peer
    revoke(room, "cedar")
    room.sync(room["birch"])
    with pytest.raises(RevokedError):
        room["birch"].ask(Service.GATEWAY, GetBundle(0, cedar), BundleAnswer)


def test_a_bundle_of_an_earlier_term_does_not_count_as_enforcing(room: Room) -> None:
    """Its number may be higher, and it still knows nothing of what the heir revoked."""
    room.run(2_000)
    room["atlas"].down = True
    room.run(12_000, until=lambda: room.serves(room["birch"]))
    room.run(2_000)
    answer = revoke(room, "cedar")
    state = room["birch"].office.desk.state
    members = state.ledger.active_members()
    for member_id, host in members:
        presence = state.presence.of(member_id)
        if host == "atlas" and presence is not None:
            old = msgspec.structs.replace(presence, bundle_sequence=10**6, bundle_term=1)
            state.presence.note(member_id, old)
    assert answer.enforced_by == 1
    assert reach(room, "cedar").enforced_by == 1
