"""Asking again: what passes is not answered from memory, and nobody fills disks by asking."""

import hashlib
import secrets
from pathlib import Path

import pytest

from broker.core.approval import PENDING_OF_ONE_MAX
from broker.errors import ApprovalDeniedError, MeshError, ThrottledError
from broker.wire.approval import ApprovalView, DecideApproval
from broker.wire.enrollment import CreateInvite, InviteView, JoinAnswer, PollTicket
from broker.wire.ids import Service
from broker.wire.roster import RevocationAnswer, RevokeMember
from tests.shell.office import Office, join_request, make_csr


@pytest.fixture
def office(home: Path) -> Office:
    """A mesh in which codes need no person."""
    return Office.create(home)


def invite(office: Office, host: str) -> str:
    """Create an invite and return its secret."""
    secret = secrets.token_urlsafe(16)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    office.ask(Service.CONSOLE, CreateInvite(digest, host, (), 3600, "ann"), InviteView)
    return secret


def barred(office: Office, host: str) -> str:
    """Return an invite for a name that was revoked since: it lets its holder ask a person."""
    office.ask(
        Service.GATEWAY,
        join_request(host, make_csr(host), invite_secret=invite(office, host)),
        JoinAnswer,
    )
    office.ask(Service.CONSOLE, RevokeMember(host, "old", "ann"), RevocationAnswer)
    early = invite(office, host)
    admitted = join_request(host, make_csr(host), invite_secret=invite(office, host))
    office.ask(Service.GATEWAY, admitted, JoinAnswer)
    office.ask(Service.CONSOLE, RevokeMember(host, "again", "ann"), RevocationAnswer)
    return early


def decide(office: Office, ticket: str, *, approve: bool) -> None:
    """Decide as the operator."""
    office.ask(Service.CONSOLE, DecideApproval(ticket, approve, "ann"), ApprovalView)


def test_a_refusal_that_passes_is_no_answer_for_a_day(office: Office) -> None:
    """Who sends the same request again later, as it was told to, must not hear the past."""
    tickets = []
    for number in range(PENDING_OF_ONE_MAX):
        host = f"web{number}"
        request = join_request(host, make_csr(host), invite_secret=barred(office, host))
        tickets.append(office.ask(Service.GATEWAY, request, JoinAnswer).ticket_id)
    late = join_request("late", make_csr("late"), invite_secret=barred(office, "late"))
    gateway, request_id = office.introduce(Service.GATEWAY), secrets.token_bytes(16)
    with pytest.raises(ThrottledError):
        office.send(gateway, late, JoinAnswer, request_id)
    decide(office, tickets[0], approve=False)
    assert office.send(gateway, late, JoinAnswer, request_id).ticket_id


def test_a_refusal_that_stays_is_answered_as_the_first_time(office: Office) -> None:
    """The other half: a lost answer to a wrong invite must not count as a second attempt."""
    wrong = join_request("nas", make_csr("nas"), invite_secret="wrong")
    gateway, request_id = office.introduce(Service.GATEWAY), secrets.token_bytes(16)
    for _ in range(2):
        with pytest.raises(MeshError):
            office.send(gateway, wrong, JoinAnswer, request_id)
    rows = [row.event for row in office.ledger.audit(0, 1000)]
    assert rows.count("join.refused") == 1


def test_whoever_was_denied_cannot_fill_the_journal_by_asking_again(office: Office) -> None:
    """An invite is not spent by asking; with a decider that always says no it would never end."""
    secret = barred(office, "nas")
    first = join_request("nas", make_csr("nas"), invite_secret=secret)
    ticket = office.ask(Service.GATEWAY, first, JoinAnswer).ticket_id
    decide(office, ticket, approve=False)
    with pytest.raises(ApprovalDeniedError):
        office.ask(Service.GATEWAY, PollTicket(ticket, "ticket"), JoinAnswer)
    head = office.ledger.head.sequence
    for _ in range(20):
        again = join_request("nas", make_csr("nas"), invite_secret=secret)
        with pytest.raises(ThrottledError) as refused:
            office.ask(Service.GATEWAY, again, JoinAnswer)
        assert refused.value.retry_after_ms > 0
    assert office.ledger.head.sequence - head <= 1
