"""Who takes over and who must not, between real brokers; no sockets, pushed time."""

import hashlib

import msgspec
import pytest

from broker.clock import boottime_ms
from broker.errors import (
    BundleRejectedError,
    InviteExpiredError,
    NotAMemberError,
    WithheldError,
)
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.claims import Gossip
from broker.wire.control import Ack
from broker.wire.enrollment import CreateInvite, InviteView, JoinAnswer
from broker.wire.failover import (
    FailoverPlan,
    Hello,
    HelloAnswer,
    Hint,
    PlanFailover,
    ReportSightings,
)
from broker.wire.ids import Service
from broker.wire.roster import (
    BundleInstalled,
    HeartbeatPlan,
    InstallBundle,
    PrepareHeartbeat,
    RevocationAnswer,
    RevokeMember,
)
from broker.wire.standby import (
    ListStandbys,
    PromoteHere,
    PromotionAnswer,
    StandbysView,
)
from broker.wire.work import LeaseWork, RenewMember, WorkAnswer
from tests.shell.mesh_room import Room
from tests.shell.office import join_request, make_csr
from tests.shell.scenes import Make, claim_of, events, fail_over


def test_a_standby_takes_over_from_a_dead_primary(room: Room) -> None:
    """The reason this project exists: a new term, and members follow at once (P9)."""
    fail_over(room)
    assert room["birch"].office.ledger.term == 2
    room.run(2_000)
    cedar = room["cedar"].office.desk.state
    leader = cedar.leader()
    assert leader is not None
    assert (leader.host, cedar.term) == ("birch", 2)
    assert "failover.promoted" in events(room, "birch")


def test_nobody_takes_over_while_the_primary_lives(room: Room) -> None:
    """A beat that advances is life, whatever else is silent."""
    room.run(30_000)
    assert room.primary().host == "atlas"
    assert room["birch"].phase == "following"


def test_a_beat_carried_by_a_member_keeps_a_standby_back(room: Room) -> None:
    """Lost multicast or a cut between two boxes is no death: members are the witnesses."""
    room.cut("atlas", "birch")
    room.run(30_000)
    assert room.primary().host == "atlas"


def test_an_isolated_standby_does_not_take_over(room: Room) -> None:
    """If I hear nobody, it is I who am cut off (row 27)."""
    for other in ("atlas", "cedar"):
        room.cut("birch", other)
    room.run(30_000)
    assert not room.serves(room["birch"])
    view = room["birch"].ask(Service.CONSOLE, ListStandbys(), StandbysView)
    assert "isolated" in view.withheld


def test_a_locked_standby_never_takes_over_and_the_next_one_does(make: Make) -> None:
    """Defects 6 and 7: a locked lowest standby blocked everybody, or promoted itself."""
    room = make("birch", "cedar", "dune")
    room.nominate("birch")
    room.nominate("cedar")
    room["birch"].ask(Service.CONSOLE, LockAuthority("ann"), AuthorityView)
    room.run(3_000)
    room["atlas"].down = True
    room.run(8_000, until=lambda: room.serves(room["cedar"]))
    assert not room.serves(room["birch"])


def test_a_dead_lower_standby_costs_one_stagger_and_no_more(make: Make) -> None:
    """Defect 6: the tiebreak ranked the dead too, for ever."""
    room = make("birch", "cedar", "dune")
    room.nominate("birch")
    room.nominate("cedar")
    room["birch"].down = room["atlas"].down = True
    began_ms = boottime_ms()
    room.run(12_000, until=lambda: room.serves(room["cedar"]))
    took_ms = boottime_ms() - began_ms
    assert 6_000 + 2_000 <= took_ms <= 6_000 + 2_000 + 3 * 1_000


def test_a_standby_announces_nothing(room: Room) -> None:
    """Defect 4: an unlocked standby announced itself and hid the primary's death from itself."""
    plan = room["birch"].ask(Service.FAILOVER, PlanFailover(), FailoverPlan)
    assert plan.announce is None
    assert room["atlas"].ask(Service.FAILOVER, PlanFailover(), FailoverPlan).announce is not None


def test_what_mdns_says_changes_no_role(room: Room) -> None:
    """Defect 8: one spoofed record demoted the primary or kept standbys from promoting.

    (row 23, P8)
    """
    pin = room["atlas"].office.creation.pin
    spoof = Hint("certmesh-ca-aaa", ("127.0.0.66",), 7642, "primary", pin, "99")
    for host in ("atlas", "birch"):
        room[host].ask(Service.FAILOVER, ReportSightings((), (spoof,)), Ack)
    assert room.primary().host == "atlas"
    room["atlas"].down = True
    began_ms = boottime_ms()
    while not room.serves(room["birch"]):
        room.run(250)
        room["birch"].ask(Service.FAILOVER, ReportSightings((), (spoof,)), Ack)
        assert boottime_ms() - began_ms < 10_000
    assert room["birch"].office.ledger.term == 2


def test_a_dead_primary_that_mdns_still_shows_delays_nothing(room: Room) -> None:
    """Defect 9: mDNS keeps a killed announcer for 19 to 75 minutes; only beats are life."""
    pin = room["atlas"].office.creation.pin
    cached = Hint("certmesh-ca-atlas", ("127.0.0.1",), 7642, "primary", pin, "1")
    room["atlas"].down = True
    began_ms = boottime_ms()
    while not room.serves(room["birch"]):
        room["birch"].ask(Service.FAILOVER, ReportSightings((), (cached,)), Ack)
        room.run(250)
        assert boottime_ms() - began_ms <= 6_000 + 3 * 1_000


def test_an_unlocked_standby_renews_nobody(make: Make) -> None:
    """Defect 11: any unlocked node renewed everyone."""
    room = make("birch", "cedar", policy={"leaf_lifetime": "2m", "renew_at": 0.1})
    room.nominate("birch")
    room.run(20_000)
    for host, serves in (("atlas", True), ("birch", False)):
        office = room[host].office
        identity = office.introduce(Service.RENEWAL, "second")
        leased = []
        while (lease := office.send(identity, LeaseWork(), WorkAnswer).lease) is not None:
            leased.append(lease.item)
        assert any(isinstance(item, RenewMember) for item in leased) is serves


def test_a_key_holder_claims_for_itself_alone(room: Room) -> None:
    """A standby's word for another node would be that node's word."""
    claim = msgspec.structs.replace(claim_of(room, "birch"), host="cedar", highest_term=99)
    with pytest.raises(NotAMemberError, match="claims to be"):
        room["atlas"].ask(Service.GATEWAY, Hello(room["birch"].peer, claim, Gossip()), HelloAnswer)
    assert room.primary().host == "atlas"


def test_a_member_cannot_depose_a_primary_by_claiming_a_term(room: Room) -> None:
    """Only a key holder claims; of a member only signatures count."""
    claim = msgspec.structs.replace(claim_of(room, "birch"), host="cedar", highest_term=99)
    with pytest.raises(NotAMemberError):
        room["atlas"].ask(Service.GATEWAY, Hello(room["cedar"].peer, claim, Gossip()), HelloAnswer)
    assert room.primary().host == "atlas"


def test_a_caretaker_of_a_lone_pair_renews_but_enrolls_nobody(make: Make) -> None:
    """Two nodes cannot tell a dead peer from a cut cable."""
    room = make("birch")
    room.nominate("birch")
    fail_over(room)
    assert room["birch"].phase == "caretaking"
    invite = CreateInvite("ab" * 32, "elm", (), 3600, "ann")
    with pytest.raises(WithheldError, match="caretaker") as refused:
        room["birch"].ask(Service.CONSOLE, invite, InviteView)
    assert "standby promote" in refused.value.hint
    answer = room["birch"].ask(Service.CONSOLE, PromoteHere("ann"), PromotionAnswer)
    assert answer.outcome == "confirmed"
    assert room["birch"].ask(Service.CONSOLE, invite, InviteView).host == "elm"
    assert events(room, "birch")[-2:] == ["failover.confirmed", "invite.created"]


def test_an_isolated_primary_enrolls_nobody(room: Room) -> None:
    """Somebody may have replaced it: what does not merge has to wait (row 26)."""
    for other in ("birch", "cedar"):
        room.cut("atlas", other)
    room.run(8_000)
    invite = CreateInvite("ab" * 32, "elm", (), 3600, "ann")
    with pytest.raises(WithheldError, match="isolated"):
        room["atlas"].ask(Service.CONSOLE, invite, InviteView)
    answer = RevokeMember("cedar", "lost", "ann")
    assert room["atlas"].ask(Service.CONSOLE, answer, RevocationAnswer).host == "cedar"


def test_an_invite_of_an_earlier_primary_is_not_honoured(room: Room) -> None:
    """Its maker may honour it on the other side of a partition at the same time (row 43)."""
    digest = hashlib.sha256(b"old").hexdigest()
    atlas = room["atlas"]
    atlas.ask(Service.CONSOLE, CreateInvite(digest, "elm", (), 3600, "ann"), InviteView)
    room.step()
    fail_over(room)
    request = join_request("elm", make_csr("elm"), invite_secret="old")
    with pytest.raises(InviteExpiredError, match="earlier primary"):
        room["birch"].ask(Service.GATEWAY, request, JoinAnswer)


def test_a_member_that_saw_a_newer_roster_refuses_an_older_one(room: Room) -> None:
    """Defect 2: anybody replaced the roster, and old ones replayed (row 36, P7)."""
    cedar = room["cedar"].office
    old = cedar.desk.state.follow.bundle_bytes
    fail_over(room)
    room.run(2_000)
    assert cedar.desk.state.follow.bundle is not None
    assert cedar.desk.state.follow.bundle.head.term == 2
    with pytest.raises(BundleRejectedError, match="has seen"):
        cedar.ask(Service.ROSTER_SYNC, InstallBundle(old, "atlas"), BundleInstalled)


def test_a_heartbeat_never_goes_to_the_node_itself(room: Room) -> None:
    """Defect 1: the heartbeat asked its own daemon."""
    for host in ("birch", "cedar"):
        plan = room[host].ask(Service.HEARTBEAT, PrepareHeartbeat(), HeartbeatPlan)
        assert host not in {target.host for target in plan.targets}
        assert "atlas" in {target.host for target in plan.targets}


def test_the_first_joiner_is_a_member_and_nothing_more(make: Make) -> None:
    """Defect 12: the first joiner of an empty roster became primary."""
    room = make("birch")
    assert room["birch"].role == "member"
    assert room.primary().host == "atlas"
