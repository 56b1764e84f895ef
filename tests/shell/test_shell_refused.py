"""Refusals in the audit trail: of people and members, once, and never a flood."""

from pathlib import Path

import pytest

from broker.errors import ConflictError, MeshError, NotFoundError
from broker.shell.dispatch import REMEMBERED, VERBS
from broker.shell.refused import CHATTER, is_answerable
from broker.wire.approval import ApprovalView, DecideApproval
from broker.wire.base import Request
from broker.wire.codec import decode_fact
from broker.wire.control import Ack
from broker.wire.enrollment import Join, PollTicket, RevokeInvite
from broker.wire.facts import ActionRefused, AuthFailed
from broker.wire.ids import Service
from broker.wire.remote import BindWorker
from broker.wire.renewal import RenewalAnswer, RenewAsPeer, RenewExpired
from broker.wire.replica import AcceptKey, KeyPackage
from broker.wire.roster import RevocationAnswer, RevokeMember
from tests.shell.mesh_room import Room
from tests.shell.office import Office, make_csr
from tests.shell.scenes import Make


@pytest.fixture
def office(home: Path) -> Office:
    """Return the primary, atlas."""
    return Office.create(home)


def refusals(office: Office) -> list[tuple[str, ActionRefused]]:
    """Return the refusals in the journal, with who asked."""
    rows = office.ledger.audit(0, 1000)
    told = ((row.actor, decode_fact(row.payload)) for row in rows)
    return [(actor, fact) for actor, fact in told if isinstance(fact, ActionRefused)]


def test_a_refused_order_is_a_row_with_the_operator_and_the_reason(office: Office) -> None:
    """Who tried to revoke the primary, and was told no?"""
    with pytest.raises(ConflictError):
        office.ask(Service.CONSOLE, RevokeMember("atlas", "x", "mallory"), RevocationAnswer)
    assert refusals(office) == [("mallory", ActionRefused("revoke-member", "atlas", "conflict"))]


def test_every_refused_decision_is_in_the_trail(office: Office) -> None:
    """Approvals, invites: whatever has an operator goes through one place."""
    orders: list[tuple[Request, type]] = [
        (DecideApproval("ab", True, "eve", ""), ApprovalView),
        (RevokeInvite("cd", "eve"), Ack),
    ]
    for request, kind in orders:
        with pytest.raises(NotFoundError):
            office.ask(Service.CONSOLE, request, kind)
    told = [(fact.action, fact.subject) for _, fact in refusals(office)]
    assert told == [("decide-approval", "ab"), ("revoke-invite", "cd")]


def test_a_member_that_asks_for_the_ca_key_uninvited_is_in_the_trail(make: Make) -> None:
    """Nobody offered it the key: that is an attempt and not an accident."""
    room = make("birch")
    with pytest.raises(MeshError):
        room["atlas"].ask(Service.GATEWAY, AcceptKey(room["birch"].peer, b"k" * 32), KeyPackage)
    assert told_by(room) == [("birch", "accept-key")]


def test_a_refused_renewal_is_in_the_trail(make: Make) -> None:
    """A request for a certificate in another name, for one."""
    room = make("birch")
    with pytest.raises(MeshError):
        room["atlas"].ask(
            Service.GATEWAY, RenewAsPeer(room["birch"].peer, make_csr("cedar")), RenewalAnswer
        )
    assert told_by(room) == [("birch", "renew-as-peer")]


def told_by(room: Room) -> list[tuple[str, str]]:
    """Return who was refused what, however the row is called."""
    office = room["atlas"].office
    rows = office.ledger.audit(0, 1000)
    facts = [(row.actor, decode_fact(row.payload)) for row in rows]
    assert not [fact for _, fact in facts if isinstance(fact, AuthFailed)]
    return [(actor, fact.action) for actor, fact in facts if isinstance(fact, ActionRefused)]


def test_the_same_refusal_is_written_once_in_a_while(office: Office) -> None:
    """A script that tries again and again fills no disk."""
    for _ in range(50):
        with pytest.raises(ConflictError):
            office.ask(Service.CONSOLE, RevokeMember("atlas", "x", "ann"), RevocationAnswer)
    assert len(refusals(office)) == 1


def test_many_members_together_get_a_row_a_second(make: Make) -> None:
    """Each could ask for many different things."""
    room = make("birch", "cedar")
    for host in ("birch", "cedar"):
        with pytest.raises(MeshError):
            room["atlas"].ask(Service.GATEWAY, AcceptKey(room[host].peer, b"k" * 32), KeyPackage)
    assert told_by(room) == [("birch", "accept-key")]
    room.run(1_500)
    with pytest.raises(MeshError):
        room["atlas"].ask(Service.GATEWAY, AcceptKey(room["cedar"].peer, b"k" * 32), KeyPackage)
    assert told_by(room) == [("birch", "accept-key"), ("cedar", "accept-key")]


def test_a_dry_run_and_a_state_of_this_node_are_no_decisions(office: Office) -> None:
    """`not the primary` says nothing about the one who asked."""
    request = RevokeMember("atlas", "x", "ann", dry_run=True)
    with pytest.raises(ConflictError):
        office.ask(Service.CONSOLE, request, RevocationAnswer)
    assert refusals(office) == []


def test_a_name_that_steers_a_terminal_is_stored_escaped(office: Office) -> None:
    """Whoever reads the trail must not be steered by whom it is about."""
    with pytest.raises(NotFoundError):
        office.ask(Service.CONSOLE, RevokeMember("\x1b[2J", "x", "ann"), RevocationAnswer)
    ((_, fact),) = refusals(office)
    assert fact.subject == repr("\x1b[2J")


def test_whatever_changes_something_for_somebody_with_a_name_is_covered() -> None:
    """A request that is added later is in the trail without anybody thinking of it."""
    strangers = {Join, PollTicket, RenewExpired}
    strangers |= {BindWorker}  # asked again every few seconds: it has a row of its own, one an hour
    nameless = {
        kind.__name__
        for kind in REMEMBERED - strangers
        if not is_answerable(kind) and "lease_id" not in kind.__struct_fields__
    }
    assert nameless == set()
    assert set(VERBS) >= CHATTER
