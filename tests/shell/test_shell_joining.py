"""Joining: credentials first, names by policy, one effect per request."""

import hashlib
import secrets
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.twofactor.totp import TOTP

from broker.clock import wall_s
from broker.errors import (
    ApprovalDeniedError,
    BadCredentialError,
    CALockedError,
    ConflictError,
    CSRRejectedError,
    EnrollmentClosedError,
    InviteExpiredError,
    InviteUsedError,
    NameNotAllowedError,
    NotFoundError,
    ThrottledError,
)
from broker.wire.approval import ApprovalsView, ApprovalView, DecideApproval, ListApprovals
from broker.wire.authority import AuthorityView, LockAuthority
from broker.wire.control import Ack
from broker.wire.enrollment import (
    CreateInvite,
    EnrollmentView,
    InviteView,
    JoinAnswer,
    PollTicket,
    RevokeInvite,
    SetEnrollment,
)
from broker.wire.ids import Service
from broker.wire.roster import ReinstateMember, RevocationAnswer, RevokeMember
from broker.wire.work import CompleteWork, Decided, LeaseWork, WorkAnswer
from tests.shell.office import Office, issued_of, join_request, make_csr
from tests.support import eventually


def invite(office: Office, host: str, **fields: Any) -> str:
    """Create an invite and return its secret."""
    secret = secrets.token_urlsafe(16)
    wanted = {"sans": (), "ttl_s": 3600, "operator": "root", **fields}
    request = CreateInvite(hashlib.sha256(secret.encode()).hexdigest(), host, **wanted)
    office.ask(Service.CONSOLE, request, InviteView)
    return secret


def code(office: Office, offset_s: int = 0) -> str:
    """Return the TOTP code of now."""
    totp = TOTP(office.desk.state.keys.totp_secret, 6, hashes.SHA1(), 30)
    return totp.generate(wall_s() + offset_s).decode()


def join(office: Office, host: str, csr: bytes | None = None, **fields: Any) -> JoinAnswer:
    """Join as the gateway would ask."""
    request = join_request(host, csr or make_csr(host), **fields)
    return office.ask(Service.GATEWAY, request, JoinAnswer)


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh without approval."""
    return Office.create(home)


def test_an_invited_host_gets_a_certificate_with_its_own_names(office: Office) -> None:
    """Names come from policy and invite, never from the CSR."""
    answer = join(office, "nas", invite_secret=invite(office, "nas", sans=("files.local",)))
    leaf = x509.load_der_x509_certificate(issued_of(answer).leaf)
    sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sans.get_values_for_type(x509.DNSName) == [
        "nas.home.internal",
        "nas.local",
        "files.local",
    ]
    assert [str(ip) for ip in sans.get_values_for_type(x509.IPAddress)] == ["127.0.0.9"]
    assert answer.server_name == "nas.home.internal"
    found = office.ledger.certificate(issued_of(answer).serial)
    assert found is not None
    assert found[0].member_id == answer.member_id


def test_a_used_invite_is_refused_for_another_key(office: Office) -> None:
    """Single use means one key, for ever (row 43, P6)."""
    secret = invite(office, "nas")
    join(office, "nas", invite_secret=secret)
    with pytest.raises(InviteUsedError, match="used already"):
        join(office, "nas", invite_secret=secret)


def test_the_same_key_may_ask_again_and_gets_the_same_certificate(office: Office) -> None:
    """A lost reply is not a lost certificate."""
    secret, csr = invite(office, "nas"), make_csr("nas")
    first = join(office, "nas", csr, invite_secret=secret)
    again = join(office, "nas", csr, invite_secret=secret)
    assert issued_of(again).leaf == issued_of(first).leaf
    assert office.ledger.member_count() == 2


def test_a_retried_request_has_one_effect_and_one_answer(office: Office) -> None:
    """Same request id: the first answer, also after a crash (P2)."""
    request = join_request("nas", make_csr("nas"), invite_secret=invite(office, "nas"))
    request_id = secrets.token_bytes(16)
    first = office.send(office.introduce(Service.GATEWAY), request, JoinAnswer, request_id)
    sequence = office.ledger.head.sequence
    office.crash()
    before = office.ledger.head.sequence
    again = office.send(office.introduce(Service.GATEWAY), request, JoinAnswer, request_id)
    assert again == first
    assert office.ledger.head.sequence == before
    assert before >= sequence


def test_a_retried_revocation_is_answered_as_the_first_time(office: Office) -> None:
    """Without the memory of the first answer the retry would be a conflict."""
    join(office, "nas", invite_secret=invite(office, "nas"))
    request_id, revoke = secrets.token_bytes(16), RevokeMember("nas", "lost", "root")
    console = office.introduce(Service.CONSOLE)
    first = office.send(console, revoke, RevocationAnswer, request_id)
    office.crash()
    again = office.introduce(Service.CONSOLE)
    assert office.send(again, revoke, RevocationAnswer, request_id) == first
    with pytest.raises(ConflictError):
        office.send(again, revoke, RevocationAnswer)


def test_a_used_invite_fetches_no_certificate_but_its_own(office: Office) -> None:
    """An invite spent on one enrollment says nothing about the next one of that name."""
    spent, csr = invite(office, "nas"), make_csr("nas")
    join(office, "nas", invite_secret=spent)
    office.ask(Service.CONSOLE, RevokeMember("nas", "rebuilt", "root"), RevocationAnswer)
    office.ask(Service.CONSOLE, ReinstateMember("nas", "root"), Ack)
    join(office, "nas", csr, totp_code=code(office))
    with pytest.raises(InviteUsedError):
        join(office, "nas", csr, invite_secret=spent)


@pytest.mark.parametrize("foreign", ["wrong-secret", "other-host"])
def test_a_foreign_invite_is_refused(office: Office, foreign: str) -> None:
    """Not from this mesh, or not for this host: the same answer, so nothing is learned."""
    secret = invite(office, "nas") if foreign == "other-host" else "x" * 22
    with pytest.raises(BadCredentialError, match="not from this mesh, or not for this host"):
        join(office, "pi", invite_secret=secret)


def test_an_expired_invite_is_refused(office: Office) -> None:
    """Its time is part of it."""
    secret = invite(office, "nas", ttl_s=1)
    weak = make_csr("nas", key=ec.generate_private_key(ec.SECP521R1()))

    def expired() -> bool:
        try:
            join(office, "nas", weak, invite_secret=secret)
        except InviteExpiredError:
            return True
        except CSRRejectedError:  # the invite itself is still good
            return False
        raise AssertionError("a weak key was certified")

    eventually(expired, within_s=5)


def test_a_revoked_invite_is_worthless(office: Office) -> None:
    """An operator can take it back."""
    secret = invite(office, "nas")
    invite_id = hashlib.sha256(secret.encode()).hexdigest()
    office.ask(Service.CONSOLE, RevokeInvite(invite_id[:12], "root"), Ack)
    with pytest.raises(InviteUsedError, match="revoked"):
        join(office, "nas", invite_secret=secret)


def test_an_invite_is_consumed_only_by_success(office: Office) -> None:
    """A bad CSR must not burn the ticket."""
    secret = invite(office, "nas")
    with pytest.raises(CSRRejectedError):
        join(office, "nas", make_csr("nas", ("evil.local",)), invite_secret=secret)
    assert join(office, "nas", invite_secret=secret).issued is not None


def test_a_totp_code_is_accepted_once(office: Office) -> None:
    """A replayed code proves nothing, also after a restart (row 20)."""
    used = code(office)
    assert join(office, "nas", totp_code=used).issued is not None
    with pytest.raises(BadCredentialError, match="used already"):
        join(office, "pi", totp_code=used)
    office.crash()
    with pytest.raises(BadCredentialError, match="used already"):
        join(office, "pi", totp_code=used)


def test_closed_enrollment_refuses_codes_but_honours_invites(office: Office) -> None:
    """An invite is its own permission."""
    secret = invite(office, "nas")
    office.ask(Service.CONSOLE, SetEnrollment(open=False, operator="root"), EnrollmentView)
    with pytest.raises(EnrollmentClosedError):
        join(office, "pi", totp_code=code(office))
    assert join(office, "nas", invite_secret=secret).issued is not None


@pytest.mark.parametrize("host", ["../nas", "nas/x", "na\ns", "*.local", "a" * 254, ".."])
def test_a_host_name_that_is_a_path_or_a_pattern_never_enters(office: Office, host: str) -> None:
    """The broker checks again, whatever the gateway let through (row 45)."""
    before = office.ledger.member_count()
    with pytest.raises((NameNotAllowedError, BadCredentialError)):
        office.ask(
            Service.CONSOLE,
            CreateInvite("ab" * 32, host[:253], (), 3600, "root"),
            InviteView,
        )
    assert office.ledger.member_count() == before


@pytest.mark.parametrize("sans", [("evil.com",), ("atlas.home.internal",), ("other.local",)])
def test_a_csr_with_foreign_sans_is_refused(office: Office, sans: tuple[str, ...]) -> None:
    """Asking for another host's name is said out loud, not silently dropped (row 44, P4)."""
    with pytest.raises(CSRRejectedError, match="not this host's"):
        join(office, "nas", make_csr("nas", sans), invite_secret=invite(office, "nas"))


def test_a_csr_for_another_common_name_is_refused(office: Office) -> None:
    """The subject is a name like any other (row 44)."""
    with pytest.raises(CSRRejectedError, match="not this host's"):
        join(office, "nas", make_csr("atlas"), invite_secret=invite(office, "nas"))


def test_sans_beyond_the_invite_are_refused(office: Office) -> None:
    """What the operator did not allow is not granted."""
    with pytest.raises(NameNotAllowedError, match="does not allow"):
        join(office, "nas", sans=("db.local",), invite_secret=invite(office, "nas"))


def test_nothing_is_signed_while_locked(office: Office) -> None:
    """Locked is locked, and says how to change that (P4)."""
    secret = invite(office, "nas")
    office.ask(Service.CONSOLE, LockAuthority("root"), AuthorityView)
    with pytest.raises(CALockedError) as refusal:
        join(office, "nas", invite_secret=secret)
    assert "ca unlock" in refusal.value.hint


def test_a_guessing_source_is_throttled_and_others_are_not(office: Office) -> None:
    """Defect: three bad codes from anyone locked out everyone."""
    for _ in range(5):
        with pytest.raises(BadCredentialError):
            join(office, "nas", totp_code="000000", source="127.0.0.66")
    with pytest.raises(ThrottledError):
        join(office, "nas", totp_code=code(office), source="127.0.0.66")
    assert join(office, "nas", totp_code=code(office)).issued is not None


class TestApproval:
    """A mesh in which a person must agree to TOTP joins."""

    @pytest.fixture
    def office(self, home: Path) -> Office:
        """A mesh with approval."""
        return Office.create(home, approval=True)

    def decide(self, office: Office, ticket: str, *, approve: bool) -> None:
        """Decide as the operator."""
        said = DecideApproval(ticket, approve, "root", "" if approve else "unknown box")
        office.ask(Service.CONSOLE, said, ApprovalView)

    def poll(self, office: Office, ticket: str, secret: str = "ticket") -> JoinAnswer:
        """Poll as the joiner."""
        return office.ask(Service.GATEWAY, PollTicket(ticket, secret), JoinAnswer)

    def test_the_credential_is_checked_before_anybody_is_asked(self, office: Office) -> None:
        """Defect: one unauthenticated POST froze the CA for 300 s."""
        with pytest.raises(BadCredentialError):
            join(office, "nas", totp_code="000000")
        assert office.ledger.approvals_pending() == 0

    def test_an_approved_joiner_gets_its_certificate_by_polling(self, office: Office) -> None:
        """The request survives a restart of the broker while the person thinks."""
        answer = join(office, "nas", totp_code=code(office))
        assert answer.issued is None
        assert len(answer.words) == 4
        office.crash()
        assert self.poll(office, answer.ticket_id).issued is None
        view = office.ask(Service.CONSOLE, ListApprovals("pending"), ApprovalsView)
        assert view.approvals[0].words == answer.words
        self.decide(office, answer.ticket_id, approve=True)
        issued = issued_of(self.poll(office, answer.ticket_id))
        assert issued_of(self.poll(office, answer.ticket_id)).leaf == issued.leaf

    def test_a_denied_joiner_is_told_so(self, office: Office) -> None:
        """With the reason."""
        answer = join(office, "nas", totp_code=code(office))
        self.decide(office, answer.ticket_id, approve=False)
        with pytest.raises(ApprovalDeniedError, match="unknown box"):
            self.poll(office, answer.ticket_id)
        with pytest.raises(ConflictError):
            self.decide(office, answer.ticket_id, approve=True)

    def test_the_reason_of_a_yes_is_kept_with_it(self, office: Office) -> None:
        """The command says that it is kept in the audit trail, so it has to be there."""
        answer = join(office, "nas", totp_code=code(office))
        request = DecideApproval(answer.ticket_id, approve=True, operator="ann", reason="my box")
        view = office.ask(Service.CONSOLE, request, ApprovalView)
        assert (view.approval.state, view.approval.reason) == ("approved", "my box")
        assert b"my box" in office.ledger.audit(0, 1000)[-1].payload

    def test_a_ticket_needs_its_secret(self, office: Office) -> None:
        """A ticket id on a screen is no credential."""
        answer = join(office, "nas", totp_code=code(office))
        self.decide(office, answer.ticket_id, approve=True)
        with pytest.raises(NotFoundError):
            self.poll(office, answer.ticket_id, secret="guess")

    def test_the_same_key_gets_the_same_ticket(self, office: Office) -> None:
        """A joiner that lost the answer asks again without a second request."""
        csr, used = make_csr("nas"), code(office)
        first = join(office, "nas", csr, totp_code=used)
        assert join(office, "nas", csr, totp_code=used).ticket_id == first.ticket_id

    def test_a_request_left_to_a_person_is_offered_to_other_workers_only(
        self, office: Office
    ) -> None:
        """An operator's prompt in a terminal works beside the supervised queue."""
        join(office, "nas", totp_code=code(office))
        queue, prompt = (office.introduce(Service.APPROVAL, name) for name in ("approval", "tty"))
        granted = office.send(queue, LeaseWork(), WorkAnswer).lease
        assert granted is not None
        left = CompleteWork(granted.lease_id, Decided(None, "", ""))
        office.send(queue, left, Ack)
        assert office.send(queue, LeaseWork(), WorkAnswer).lease is None
        assert office.send(prompt, LeaseWork(), WorkAnswer).lease is not None

    def test_an_invite_needs_no_second_person(self, office: Office) -> None:
        """The operator who made it already named the host."""
        assert join(office, "nas", invite_secret=invite(office, "nas")).issued is not None


def test_a_weak_key_is_refused_after_the_credential_only(office: Office) -> None:
    """Parsing costs; strangers do not get it for free."""
    weak = make_csr("nas", key=ec.generate_private_key(ec.SECP521R1()))
    with pytest.raises(BadCredentialError):
        join(office, "nas", weak, invite_secret="unknown")
    with pytest.raises(CSRRejectedError):
        join(office, "nas", weak, invite_secret=invite(office, "nas"))
