"""Mandates as a member sees them: what lets a renewal worker's machine in, and nothing else."""

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from broker.clock import wall_s
from broker.errors import (
    ClaimRejectedError,
    ForbiddenError,
    MeshError,
    NotAMemberError,
    RevokedError,
    StaleTermError,
)
from broker.pki.statement import Statements, sign_mandate, sign_name
from broker.shell.gossip import verified_mandate
from broker.shell.grants import MANDATE_S
from broker.shell.issuers import issuers_of
from broker.shell.mandate import SKEW_S
from broker.units import UnixSeconds
from broker.wire.claims import MandateStatement, NameStatement, SignedMandate
from broker.wire.control import Fault
from broker.wire.ids import Service
from broker.wire.renewal import StartInstall, StartRekey
from broker.wire.roster import RevocationAnswer, RevokeMember
from broker.wire.work import Install, LeaseWork, Rekey, WorkAnswer
from tests.shell.grant_scenes import DUE, bind, enroll, introduce, lease_remotely, open_port
from tests.shell.mesh_room import Room
from tests.shell.office import Office
from tests.shell.scenes import Make, fail_over


@pytest.fixture
def due(make: Make) -> Room:
    """Atlas leads; cedar runs remote workers; elm, and cedar itself, are due."""
    room = make("cedar", "elm", **DUE)
    open_port(room["atlas"].office)
    enroll(room["atlas"], "cedar")
    bind(room, "cedar")
    room.run(2_000)  # the bundle tells members which key signs
    return room


def statement(room: Room, **changes: Any) -> MandateStatement:
    """Return a mandate of cedar for elm, with changes."""
    atlas = room["atlas"].office
    elm = atlas.ledger.member_by_host("elm")
    assert elm is not None
    mesh = atlas.ledger.mesh()
    assert mesh is not None
    good = MandateStatement(
        mesh_id=mesh.mesh_id,
        agent="cedar",
        host="elm",
        member_id=elm.member_id,
        term=atlas.ledger.term,
        expires_at=UnixSeconds(wall_s() + MANDATE_S),
    )
    return replace(good, **changes)


def signed(room: Room, **changes: Any) -> SignedMandate:
    """Return that mandate, signed by the issuing key of the mesh."""
    return sign_mandate(room["atlas"].office.desk.state.issuer(), statement(room, **changes))


def refusal(room: Room, mandate: SignedMandate | None, host: str = "cedar", term: int = 1) -> str:
    """Return elm's word against `host` with that mandate, the same for a key and a delivery."""
    told = set()
    for request in (
        StartRekey(room[host].peer, term, mandate),
        StartInstall(room[host].peer, b"leaf", b"issuing", term, mandate),
    ):
        with pytest.raises(MeshError) as refused:
            room["elm"].ask(Service.GATEWAY, request, Fault)
        told.add(f"{refused.value.code}: {refused.value.detail}")
    (one,) = told
    assert not room["elm"].office.desk.state.tasks.all()
    return one


def accepted(room: Room, mandate: SignedMandate, term: int = 1) -> None:
    """Have elm take a call of cedar: its renewal worker is given the item."""
    elm = room["elm"].office
    identity = elm.introduce(Service.GATEWAY)
    rekey = StartRekey(room["cedar"].peer, term, mandate)
    install = StartInstall(room["cedar"].peer, b"leaf", b"issuing", term, mandate)
    assert elm.turn([(identity, rekey, b"1" * 16), (identity, install, b"2" * 16)]) == []
    items = [task.item for task in elm.desk.state.tasks.all()]
    assert [type(item) for item in items] == [Rekey, Install]


def test_a_mandate_of_the_primary_lets_its_machine_in(due: Room) -> None:
    """The one that comes with the lease; a forged term beside it does no harm."""
    atlas = due["atlas"].office
    route = introduce(atlas)
    found = {}
    for _ in range(2):
        _, item = lease_remotely(atlas, route)
        found[item.host] = item
    mandate = found["elm"].mandate
    assert mandate is not None
    accepted(due, mandate, term=999)


def test_local_workers_get_no_mandate(due: Room) -> None:
    """They come with the certificate of a key holder, and a signature costs time."""
    answer = due["atlas"].ask(Service.RENEWAL, LeaseWork(local=False), WorkAnswer)
    assert answer.lease is not None
    assert getattr(answer.lease.item, "mandate", "none there") is None


def test_without_a_mandate_a_plain_member_is_refused_as_ever(due: Room) -> None:
    """A grant alone moves no member."""
    assert refusal(due, None) == "not_a_member: cedar is not a key holder of this mesh"


def test_a_mandate_serves_the_machine_it_was_given_to_only(due: Room) -> None:
    """Attack: another member read it somewhere and replays it."""
    due.join("oak", 4)
    assert "given to cedar, not to oak" in refusal(due, signed(due), host="oak")


def test_a_mandate_serves_for_the_member_it_is_about_only(due: Room) -> None:
    """Attack: a worker with a lease of one member calls another."""
    told = refusal(due, signed(due, member_id="ab" * 8, host="fir"))
    assert told == "forbidden: this mandate is about fir, not about elm"


def test_a_mandate_of_another_mesh_is_worth_nothing(due: Room) -> None:
    """Also with the right signature."""
    assert "belongs to another mesh" in refusal(due, signed(due, mesh_id="ab" * 8))


def test_a_mandate_signed_by_another_key_is_worth_nothing(due: Room, tmp_path: Path) -> None:
    """Attack: a CA of one's own."""
    other = Office.create(tmp_path)
    forged = sign_mandate(other.desk.state.issuer(), statement(due))
    other.ledger.close()
    assert "signature of the mandate does not verify" in refusal(due, forged)


def test_another_statement_of_the_issuing_key_is_no_mandate(due: Room) -> None:
    """Attack: what the CA signs for everybody, presented as something else."""
    wanted = statement(due)
    named = NameStatement(wanted.mesh_id, wanted.member_id, "elm", 1, 1)
    name = sign_name(due["atlas"].office.desk.state.issuer(), named)
    assert "does not verify" in refusal(due, SignedMandate(name.body, name.signature))


def test_a_changed_mandate_is_no_mandate(due: Room) -> None:
    """Attack: later end, same signature."""
    genuine = signed(due, agent="oak")
    body = genuine.body.replace(b"\xa3oak", b"\xa5cedar")
    assert body != genuine.body
    assert "does not verify" in refusal(due, SignedMandate(body, genuine.signature))


def test_a_mandate_ends_and_clocks_may_differ_a_little(due: Room) -> None:
    """A machine that lost its grant is done within a quarter of an hour, whatever it kept."""
    over = signed(due, expires_at=UnixSeconds(wall_s() - SKEW_S - 1))
    assert "the mandate of cedar is over" in refusal(due, over)
    accepted(due, signed(due, expires_at=UnixSeconds(wall_s() - SKEW_S)))


def test_a_mandate_of_a_replaced_primary_is_refused(make: Make) -> None:
    """Whatever term the worker itself says: what a replaced primary signs nobody installs."""
    room = make("birch", "cedar", "elm")
    room.nominate("birch")
    mandate = signed(room)
    fail_over(room)
    room.run(2_000)
    with pytest.raises(StaleTermError):
        room["elm"].ask(Service.GATEWAY, StartRekey(room["cedar"].peer, 99, mandate), Fault)


def test_a_revoked_machine_is_refused_whatever_mandate_it_shows(due: Room) -> None:
    """As soon as the member has heard of the revocation."""
    mandate = signed(due)
    due["atlas"].ask(Service.CONSOLE, RevokeMember("cedar", "stolen", "ann"), RevocationAnswer)
    due.run(4_000)
    with pytest.raises(RevokedError):
        due["elm"].ask(Service.GATEWAY, StartRekey(due["cedar"].peer, 1, mandate), Fault)


def test_an_expired_machine_is_refused(due: Room) -> None:
    """An open connection is no excuse."""
    mandate = signed(due)
    peer = replace(due["cedar"].peer, not_after=UnixSeconds(wall_s() - 1))
    with pytest.raises(NotAMemberError, match="certificate of cedar expired"):
        due["elm"].ask(Service.GATEWAY, StartRekey(peer, 1, mandate), Fault)


def test_the_refusal_of_a_mandate_is_audited_on_a_ca_node(due: Room) -> None:
    """As every other peer that is turned away."""
    forged = signed(due, agent="oak")
    with pytest.raises(ForbiddenError):
        due["atlas"].ask(Service.GATEWAY, StartRekey(due["cedar"].peer, 1, forged), Fault)
    rows = due["atlas"].office.ledger.audit(0, 1000)
    assert "auth.failed" in [row.event for row in rows]


def test_a_mandate_reads_back_as_it_was_signed(due: Room) -> None:
    """Property of the pair: signing and reading are inverse, and the wrong CA reads nothing."""
    state = due["elm"].office.desk.state
    mandate, wanted = signed(due), statement(due)
    (issuing,) = issuers_of(state)
    assert verified_mandate(state, mandate) == wanted
    assert Statements(issuing, wanted.mesh_id).mandate(mandate) == wanted
    with pytest.raises(ClaimRejectedError):
        Statements(issuing, "ab" * 8).mandate(mandate)


def test_a_member_that_never_saw_a_bundle_believes_no_mandate(make: Make) -> None:
    """It cannot know which key signs; the CA's own workers reach it all the same."""
    room = make("cedar", "elm")
    assert "no issuing certificate" in refusal(room, signed(room))
