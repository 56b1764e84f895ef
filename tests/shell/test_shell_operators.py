"""Decisions and the names on them, at the broker's desk."""

import hashlib
import inspect
import secrets
from pathlib import Path
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from broker.clock import wall_s
from broker.core.operators import DECISIONS, UPKEEP, require_operator
from broker.errors import ForbiddenError, MeshError
from broker.wire.approval import ApprovalsView, ApprovalView, DecideApproval, ListApprovals
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.base import Request
from broker.wire.control import Ack
from broker.wire.enrollment import (
    CreateInvite,
    EnrollmentView,
    InviteView,
    JoinAnswer,
    PollTicket,
    SetEnrollment,
)
from broker.wire.ids import Service
from broker.wire.messages import AnyRequest
from broker.wire.operator import operator_of
from broker.wire.policy import Policy, PolicyPatch, PolicyView, Profile, SetPolicy
from broker.wire.roster import RevocationAnswer, RevokeMember
from broker.wire.standby import PromoteHere
from broker.wire.work import CompleteWork, Decided, LeaseWork, WorkAnswer
from tests.shell.office import Office, issued_of, join_request, make_csr

NOBODY = operator_of("root", "")
SOMEBODY = operator_of("root", "ann")
STRICT = Policy(operator_required=True)


def opened(home: Path, profile: Profile, *, approval: bool = True) -> Office:
    """Return a mesh with this profile."""
    office = Office.create(home)
    patch = PolicyPatch(profile=profile, approval=approval)
    office.ask(Service.CONSOLE, SetPolicy(patch, "ann"), PolicyView)
    return office


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh that asks for operators, and for a person's word about joins by code."""
    return opened(home, "my-team")


def waiting(office: Office, host: str = "nas") -> str:
    """Return the ticket of a join that waits."""
    totp = TOTP(office.desk.state.keys.totp_secret, 6, hashes.SHA1(), 30)
    code = totp.generate(wall_s()).decode()
    request = join_request(host, make_csr(host), totp_code=code)
    return office.ask(Service.GATEWAY, request, JoinAnswer).ticket_id


def invite(operator: str) -> CreateInvite:
    """Return the wish for an invite."""
    return CreateInvite(hashlib.sha256(secrets.token_bytes(8)).hexdigest(), "pi", (), 60, operator)


@pytest.mark.parametrize("nobody", ["", NOBODY])
@pytest.mark.parametrize("approve", [True, False])
def test_a_decision_without_a_name_is_refused_with_what_to_do(
    office: Office, nobody: str, *, approve: bool
) -> None:
    """Profiles my-team and my-organization: the audit trail must say who let a host in."""
    ticket = waiting(office)
    with pytest.raises(ForbiddenError) as refusal:
        office.ask(Service.CONSOLE, DecideApproval(ticket, approve, nobody), ApprovalView)
    assert "--operator NAME" in refusal.value.hint
    assert office.ledger.approvals_pending() == 1

    said = DecideApproval(ticket, approve, SOMEBODY, "as agreed")
    view = office.ask(Service.CONSOLE, said, ApprovalView)
    assert view.approval.operator == "ann (as root)"


def test_every_door_to_a_decision_asks_for_the_name(office: Office) -> None:
    """Not approvals alone: whoever can revoke or invite decides who belongs."""
    mesh = office.ledger.mesh()
    orders: tuple[tuple[Request, Any], ...] = (
        (RevokeMember("atlas", "lost", NOBODY), RevocationAnswer),
        (invite(NOBODY), InviteView),
        (SetEnrollment(open=False, operator=NOBODY), EnrollmentView),
        (SetPolicy(PolicyPatch(operator_required=False), NOBODY), PolicyView),
        (PromoteHere(NOBODY), Ack),
    )
    for order, kind in orders:
        with pytest.raises(ForbiddenError, match="nobody put a name to"):
            office.ask(Service.CONSOLE, order, kind)
    assert office.ledger.mesh() == mesh
    assert office.ledger.member_count() == 1
    assert not office.ledger.invites(10)


def test_a_dry_run_and_the_brakes_need_no_name(office: Office) -> None:
    """Looking decides nothing, and locking the CA in an emergency must never be harder."""
    patch = PolicyPatch(approval=False)
    office.ask(Service.CONSOLE, SetPolicy(patch, NOBODY, dry_run=True), PolicyView)
    view = office.ask(Service.CONSOLE, LockAuthority(NOBODY), AuthorityView)
    assert view.state == "locked"


def test_defect_22_just_me_with_approval_on_can_approve(home: Path) -> None:
    """It asked for an operator that a mesh of one person does not have: nothing ever passed."""
    office = opened(home, "just-me")
    ticket = waiting(office)

    office.ask(Service.CONSOLE, DecideApproval(ticket, True, NOBODY), ApprovalView)

    answer = office.ask(Service.GATEWAY, PollTicket(ticket, "ticket"), JoinAnswer)
    assert issued_of(answer).serial


def test_a_workers_yes_without_a_name_is_refused_and_left_to_others(office: Office) -> None:
    """A prompt in root's terminal, or a decider of somebody's own making, is no way around it."""
    ticket = waiting(office)
    worker = office.introduce(Service.APPROVAL, "tty")
    lease = office.send(worker, LeaseWork(), WorkAnswer).lease
    assert lease is not None
    with pytest.raises(ForbiddenError):
        office.send(worker, CompleteWork(lease.lease_id, Decided(True, NOBODY, "")), Ack)
    assert office.ledger.approvals_pending() == 1
    assert office.send(worker, LeaseWork(), WorkAnswer).lease is None

    other = office.introduce(Service.APPROVAL, "other")
    again = office.send(other, LeaseWork(), WorkAnswer).lease
    assert again is not None
    office.send(other, CompleteWork(again.lease_id, Decided(True, SOMEBODY, "")), Ack)
    (line,) = office.ask(Service.CONSOLE, ListApprovals(), ApprovalsView).approvals
    assert (line.approval_id, line.state, line.operator) == (ticket, "approved", "ann (as root)")


def test_a_workers_no_needs_no_name(office: Office) -> None:
    """With nobody to ask the answer is no; that must hold in every mesh."""
    waiting(office)
    worker = office.introduce(Service.APPROVAL)
    lease = office.send(worker, LeaseWork(), WorkAnswer).lease
    assert lease is not None
    office.send(worker, CompleteWork(lease.lease_id, Decided(False, "", "nobody to ask")), Ack)
    assert office.ledger.approvals_pending() == 0


def test_every_order_with_an_operator_was_thought_about() -> None:
    """A new request that names its operator must be put into one of the two lists."""
    named = {kind for kind in get_args(AnyRequest) if "operator" in kind.__struct_fields__}
    assert named == DECISIONS | UPKEEP
    assert not DECISIONS & UPKEEP


@pytest.mark.parametrize("kind", sorted(DECISIONS, key=str))
def test_each_decision_is_refused_without_a_name_and_taken_with_one(kind: type[Request]) -> None:
    """One rule, in one place, for all of them."""
    fields = dict.fromkeys(inspect.signature(kind).parameters, "")
    fields.pop("dry_run", None)
    with pytest.raises(ForbiddenError):
        require_operator(STRICT, kind(**{**fields, "operator": NOBODY}))
    require_operator(STRICT, kind(**{**fields, "operator": "ann"}))
    require_operator(STRICT, kind(**{**fields, "operator": "token:ci"}))
    require_operator(Policy(operator_required=False), kind(**{**fields, "operator": ""}))
    require_operator(None, kind(**{**fields, "operator": ""}))


def test_the_rule_outlives_a_restart(office: Office) -> None:
    """It is mesh state, not a setting of one process."""
    office.crash()
    with pytest.raises(MeshError):
        office.ask(Service.CONSOLE, invite(NOBODY), InviteView)
    office.ask(Service.CONSOLE, invite("ann"), InviteView)
