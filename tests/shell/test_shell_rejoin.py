"""A name comes back: a lost disk, a revoked machine, a member that left.

Defect 27 of the reference: a lost reply or a wiped disk could not be retried, and a revoked name
was barred for ever. The opposite is as bad: a name must not change hands without a person's word.
"""

import hashlib
import secrets
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.twofactor.totp import TOTP
from msgspec.structs import replace

from broker.clock import wall_s
from broker.errors import (
    AlreadyEnrolledError,
    ApprovalDeniedError,
    ConflictError,
    InviteUsedError,
    NameNotAllowedError,
    RevokedError,
)
from broker.units import UnixSeconds
from broker.wire.approval import ApprovalsView, ApprovalView, DecideApproval, ListApprovals
from broker.wire.codec import decode_fact
from broker.wire.control import Ack
from broker.wire.enrollment import CreateInvite, InviteView, JoinAnswer, PollTicket, RevokeInvite
from broker.wire.events import BundleMoved
from broker.wire.facts import AnyFact, InviteCreated, MemberRevoked, PolicyChanged
from broker.wire.ids import Service
from broker.wire.roster import (
    LeaveMesh,
    ReinstateMember,
    RevocationAnswer,
    RevokeMember,
    WhoAmI,
    WhoAmIAnswer,
)
from broker.wire.standby import NominateStandby
from tests.shell.office import Office, issued_of, join_request, make_csr, peer_of

REPLACES = "nas is an active member: approving replaces it"


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh in which codes need no person: the least careful policy there is."""
    return Office.create(home)


def invite(office: Office, host: str = "nas", *, rejoin: bool = False) -> str:
    """Create an invite and return its secret."""
    secret = secrets.token_urlsafe(16)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    request = CreateInvite(digest, host, (), 3600, "ann", rejoin)
    office.ask(Service.CONSOLE, request, InviteView)
    return secret


def join(office: Office, csr: bytes | None = None, host: str = "nas", **fields: str) -> JoinAnswer:
    """Join as the gateway would ask."""
    request = join_request(host, csr or make_csr(host), **fields)
    return office.ask(Service.GATEWAY, request, JoinAnswer)


def code(office: Office, offset_s: int = 0) -> str:
    """Return the TOTP code of now."""
    totp = TOTP(office.desk.state.keys.totp_secret, 6, hashes.SHA1(), 30)
    return totp.generate(wall_s() + offset_s).decode()


def revoke(office: Office, host: str = "nas", reason: str = "stolen") -> None:
    """Revoke as the operator."""
    office.ask(Service.CONSOLE, RevokeMember(host, reason, "ann"), RevocationAnswer)


def decide(office: Office, ticket: str, *, approve: bool = True) -> None:
    """Decide as the operator."""
    office.ask(Service.CONSOLE, DecideApproval(ticket, approve, "ann"), ApprovalView)


def poll(office: Office, ticket: str) -> JoinAnswer:
    """Poll as the joiner."""
    return office.ask(Service.GATEWAY, PollTicket(ticket, "ticket"), JoinAnswer)


def notes(office: Office) -> list[str]:
    """Return what the person is told about what waits."""
    view = office.ask(Service.CONSOLE, ListApprovals("pending"), ApprovalsView)
    return [approval.note for approval in view.approvals]


def active(office: Office, host: str = "nas") -> str:
    """Return the member id behind a name."""
    member = office.ledger.member_by_host(host)
    assert member is not None
    return member.member_id


def write(office: Office, fact: AnyFact) -> None:
    """Write a row as the primary."""
    batch = office.desk.open_batch()
    batch.append(fact, "ann")
    office.desk.finish(batch, [])


def cause_of(office: Office, member_id: str) -> str:
    """Return why a member was revoked, in the journal's own words."""
    rows = office.ledger.audit(0, 1000)
    facts = [decode_fact(row.payload) for row in rows]
    found = [f for f in facts if isinstance(f, MemberRevoked) and f.member_id == member_id]
    return found[-1].cause


def test_defect_27_a_wiped_disk_is_a_rejoin_not_a_dead_name(office: Office) -> None:
    """An operator's word in advance replaces the lost identity in one step."""
    first = join(office, invite_secret=invite(office))
    again = join(office, invite_secret=invite(office, rejoin=True))
    assert again.member_id == active(office) != first.member_id
    assert cause_of(office, first.member_id) == "rejoined"
    assert office.ledger.member_count() == 2
    assert issued_of(first).serial in {serial for serial, _ in office.ledger.revoked_serials(0)}
    assert any(isinstance(event, BundleMoved) for event in office.events)


def test_the_replaced_identity_is_refused_at_once(office: Office) -> None:
    """Whoever found the old disk must not be a member beside the new machine."""
    first = issued_of(join(office, invite_secret=invite(office)))
    second = issued_of(join(office, invite_secret=invite(office, rejoin=True)))
    with pytest.raises(RevokedError):
        office.ask(Service.GATEWAY, WhoAmI(peer_of(first, "nas")), WhoAmIAnswer)
    answer = office.ask(Service.GATEWAY, WhoAmI(peer_of(second, "nas")), WhoAmIAnswer)
    assert answer.host == "nas"


def test_replacing_is_one_drain_old_and_new_together(office: Office) -> None:
    """A crash between the two would leave a name with no owner, or with two."""
    join(office, invite_secret=invite(office))
    secret = invite(office, rejoin=True)
    before = office.ledger.head.sequence
    request = join_request("nas", make_csr("nas"), invite_secret=secret)
    identity = office.introduce(Service.GATEWAY)
    office.turn([(identity, request, secrets.token_bytes(16))])
    written = [row.event for row in office.ledger.audit(before, 10)]
    assert written == ["member.revoked", "invite.used", "member.joined", "certificate.issued"]


def test_a_lost_reply_to_a_rejoin_is_answered_with_the_same_certificate(office: Office) -> None:
    """Else the retry would replace the identity that was just made."""
    join(office, invite_secret=invite(office))
    secret, csr = invite(office, rejoin=True), make_csr("nas")
    first = join(office, csr, invite_secret=secret)
    office.crash()
    again = join(office, csr, invite_secret=secret)
    assert issued_of(again).leaf == issued_of(first).leaf
    with pytest.raises(InviteUsedError):
        join(office, invite_secret=secret)
    assert active(office) == first.member_id


def test_an_invite_for_a_name_in_use_has_to_say_that_it_replaces(office: Office) -> None:
    """A slip of the operator must not throw a working machine out."""
    join(office, invite_secret=invite(office))
    with pytest.raises(AlreadyEnrolledError) as refused:
        invite(office)
    assert "--rejoin" in refused.value.hint


def test_an_invite_without_the_word_rejoin_replaces_nobody_by_itself(office: Office) -> None:
    """It was made for a new machine; that somebody took the name meanwhile was not foreseen."""
    spare = invite(office)
    first = join(office, totp_code=code(office))
    answer = join(office, invite_secret=spare)
    assert answer.issued is None
    assert (notes(office)[0].startswith(REPLACES), active(office)) == (True, first.member_id)


def test_a_rejoin_invite_made_before_the_member_joined_replaces_nobody(office: Office) -> None:
    """The word was about another machine; this one joined later, perhaps because of it."""
    spare = invite(office, rejoin=True)
    first = join(office, totp_code=code(office))
    assert join(office, invite_secret=spare).issued is None
    assert active(office) == first.member_id


def test_an_invite_without_that_word_replaces_nobody_wherever_it_came_from(office: Office) -> None:
    """This broker refuses to make one; one that came home from another primary is read as well."""
    first = join(office, invite_secret=invite(office))
    secret = secrets.token_urlsafe(16)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    write(office, InviteCreated(digest, "nas", (), UnixSeconds(wall_s() + 3600)))
    assert join(office, invite_secret=secret).issued is None
    assert active(office) == first.member_id


def test_a_code_alone_never_takes_the_name_of_an_active_member(office: Office) -> None:
    """Without this any insider with the enrollment secret could become any host."""
    first = join(office, invite_secret=invite(office))
    answer = join(office, totp_code=code(office))
    assert answer.issued is None
    assert len(answer.words) == 4
    assert notes(office)[0].startswith(REPLACES)
    assert active(office) == first.member_id
    assert (
        office.ask(Service.GATEWAY, WhoAmI(peer_of(issued_of(first), "nas")), WhoAmIAnswer).state
        == "active"
    )


def test_a_persons_yes_replaces_the_member_atomically(office: Office) -> None:
    """The person saw what it means; the old identity ends where the new one begins."""
    first = join(office, invite_secret=invite(office))
    ticket = join(office, totp_code=code(office)).ticket_id
    decide(office, ticket)
    assert active(office) == first.member_id  # approved, but nobody came for it yet
    second = poll(office, ticket)
    assert active(office) == second.member_id != first.member_id
    assert cause_of(office, first.member_id) == "rejoined"
    assert issued_of(poll(office, ticket)).leaf == issued_of(second).leaf


def test_a_persons_no_leaves_the_member_alone(office: Office) -> None:
    """And the invite that asked stays what it was: only success consumes it."""
    spare = invite(office)
    first = join(office, totp_code=code(office))
    ticket = join(office, invite_secret=spare).ticket_id
    decide(office, ticket, approve=False)
    with pytest.raises(ApprovalDeniedError):
        poll(office, ticket)
    assert active(office) == first.member_id
    row = office.ledger.invite(hashlib.sha256(spare.encode()).hexdigest())
    assert row is not None
    assert row.state == "open"


def test_an_invite_that_waited_for_a_person_belongs_to_the_key_that_got_in(office: Office) -> None:
    """A merge compares who redeemed an invite by member id, so it must be the real one."""
    spare, csr = invite(office), make_csr("nas")
    join(office, totp_code=code(office))
    ticket = join(office, csr, invite_secret=spare).ticket_id
    assert join(office, csr, invite_secret=spare).ticket_id == ticket
    decide(office, ticket)
    member_id = poll(office, ticket).member_id
    row = office.ledger.invite(hashlib.sha256(spare.encode()).hexdigest())
    assert row is not None
    assert (row.state, row.member_id) == ("used", member_id)
    assert join(office, csr, invite_secret=spare).member_id == member_id


def test_an_invite_revoked_while_a_person_thinks_opens_nothing(office: Office) -> None:
    """The operator took the permission back; a yes given before does not bring it again."""
    spare = invite(office)
    first = join(office, totp_code=code(office))
    ticket = join(office, invite_secret=spare).ticket_id
    digest = hashlib.sha256(spare.encode()).hexdigest()
    office.ask(Service.CONSOLE, RevokeInvite(digest, "ann"), Ack)
    decide(office, ticket)
    with pytest.raises(ApprovalDeniedError, match="used or revoked"):
        poll(office, ticket)
    assert active(office) == first.member_id


def test_a_yes_does_not_survive_a_later_revocation(office: Office) -> None:
    """The person agreed to replace a working nas, not to let a stolen one back in."""
    join(office, invite_secret=invite(office))
    ticket = join(office, totp_code=code(office)).ticket_id
    decide(office, ticket)
    revoke(office)
    with pytest.raises(ApprovalDeniedError, match="because stolen"):
        poll(office, ticket)
    assert office.ledger.member_by_host("nas") is None


def test_a_yes_does_not_replace_somebody_the_person_never_saw(office: Office) -> None:
    """The name changed hands between question and answer."""
    join(office, invite_secret=invite(office))
    ticket = join(office, totp_code=code(office)).ticket_id
    decide(office, ticket)
    third = join(office, invite_secret=invite(office, rejoin=True))
    with pytest.raises(ApprovalDeniedError, match="changed hands"):
        poll(office, ticket)
    assert active(office) == third.member_id


def test_a_refusal_at_the_last_moment_leaves_the_old_identity_in_place(office: Office) -> None:
    """The policy changed while the person thought: nothing of the replacement may be written."""
    first = join(office, invite_secret=invite(office))
    ticket = join(office, totp_code=code(office)).ticket_id
    decide(office, ticket)
    mesh = office.ledger.mesh()
    assert mesh is not None
    narrow = replace(mesh.policy, networks=("10.0.0.0/8",))
    write(office, PolicyChanged(narrow, ("networks",)))
    head = office.ledger.head
    with pytest.raises(NameNotAllowedError):
        poll(office, ticket)
    assert office.ledger.head == head
    assert active(office) == first.member_id


def test_a_primary_or_standby_is_never_replaced_by_a_join(office: Office) -> None:
    """It holds the CA key; losing it by a form on the enrol port is no way to lose it."""
    join(office, invite_secret=invite(office))
    spare = invite(office, rejoin=True)
    ticket = join(office, totp_code=code(office)).ticket_id
    decide(office, ticket)
    office.ask(Service.CONSOLE, NominateStandby("nas", "ann"), Ack)
    with pytest.raises(AlreadyEnrolledError, match="standby") as refused:
        join(office, invite_secret=spare)
    assert "standby remove nas" in refused.value.hint
    with pytest.raises(AlreadyEnrolledError, match="standby"):
        poll(office, ticket)
    with pytest.raises(AlreadyEnrolledError, match="primary"):
        invite(office, "atlas", rejoin=True)
    with pytest.raises(AlreadyEnrolledError, match="primary"):
        join(office, host="atlas", totp_code=code(office, 30))


def test_a_revoked_name_needs_a_persons_word(office: Office) -> None:
    """Defect 27: it was barred for ever. A code alone still does not bring a stolen box back."""
    join(office, invite_secret=invite(office))
    revoke(office)
    answer = join(office, totp_code=code(office))
    assert answer.issued is None
    (note,) = notes(office)
    assert note.startswith("this name was revoked on 2")
    assert "because stolen" in note
    decide(office, answer.ticket_id)
    assert poll(office, answer.ticket_id).issued is not None


def test_an_invite_made_after_the_revocation_is_a_persons_word(office: Office) -> None:
    """The operator knew; nobody has to be asked twice."""
    join(office, invite_secret=invite(office))
    revoke(office)
    assert join(office, invite_secret=invite(office)).issued is not None


def test_an_invite_made_before_the_revocation_is_not(office: Office) -> None:
    """A thief that has the machine may have the spare invite as well."""
    spare = invite(office)
    join(office, totp_code=code(office))
    revoke(office)
    assert join(office, invite_secret=spare).issued is None
    assert "because stolen" in notes(office)[0]


def test_a_reinstated_name_is_free_and_its_old_identity_stays_out(office: Office) -> None:
    """Reinstating forgives the name, never the key."""
    first = issued_of(join(office, invite_secret=invite(office)))
    revoke(office)
    office.ask(Service.CONSOLE, ReinstateMember("nas", "ann"), Ack)
    with pytest.raises(RevokedError):
        office.ask(Service.GATEWAY, WhoAmI(peer_of(first, "nas")), WhoAmIAnswer)
    office.crash()
    assert join(office, totp_code=code(office)).issued is not None


def test_a_second_revocation_bars_a_reinstated_name_again(office: Office) -> None:
    """The word that lifted the first bar says nothing about the second machine."""
    join(office, invite_secret=invite(office))
    revoke(office)
    office.ask(Service.CONSOLE, ReinstateMember("nas", "ann"), Ack)
    join(office, totp_code=code(office))
    revoke(office, reason="broken into")
    assert join(office, totp_code=code(office, 30)).issued is None
    assert "because broken into" in notes(office)[0]


@pytest.mark.parametrize("host", ["nas", "never"])
def test_only_a_revoked_name_can_be_reinstated(office: Office, host: str) -> None:
    """Active, unknown and free names have nothing to lift; saying so prevents a false belief."""
    join(office, invite_secret=invite(office))
    with pytest.raises(ConflictError):
        office.ask(Service.CONSOLE, ReinstateMember(host, "ann"), Ack)
    revoke(office)
    if host == "nas":
        office.ask(Service.CONSOLE, ReinstateMember(host, "ann"), Ack)
    with pytest.raises(ConflictError):
        office.ask(Service.CONSOLE, ReinstateMember(host, "ann"), Ack)


def test_a_name_that_left_is_free(office: Office) -> None:
    """Nobody distrusted it: a code is enough, as for any new machine."""
    answer = join(office, invite_secret=invite(office))
    peer = peer_of(issued_of(answer), "nas")
    office.ask(Service.GATEWAY, LeaveMesh(peer), Ack)
    assert cause_of(office, answer.member_id) == "left"
    with pytest.raises(RevokedError):
        office.ask(Service.GATEWAY, WhoAmI(peer), WhoAmIAnswer)
    assert join(office, totp_code=code(office)).issued is not None


def test_a_retried_leave_is_answered_as_the_first_time(office: Office) -> None:
    """A lost reply must not look like a refusal."""
    peer = peer_of(issued_of(join(office, invite_secret=invite(office))), "nas")
    request_id, gateway = secrets.token_bytes(16), office.introduce(Service.GATEWAY)
    office.send(gateway, LeaveMesh(peer), Ack, request_id)
    office.crash()
    again = office.introduce(Service.GATEWAY)
    assert office.send(again, LeaveMesh(peer), Ack, request_id) == Ack()


def test_a_standby_cannot_leave_with_the_ca_key(office: Office) -> None:
    """It has to give the key back first, which `standby remove` makes it do."""
    peer = peer_of(issued_of(join(office, invite_secret=invite(office))), "nas")
    office.ask(Service.CONSOLE, NominateStandby("nas", "ann"), Ack)
    with pytest.raises(ConflictError) as refused:
        office.ask(Service.GATEWAY, LeaveMesh(peer), Ack)
    assert "standby remove nas" in refused.value.hint
