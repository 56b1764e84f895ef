"""Join and poll: the way from a stranger with a credential to a member with a certificate."""

import hashlib
import hmac

from broker.core.doors import ADDRESSES_MAX, check_doors
from broker.core.limiter import source_key
from broker.core.names import check_new_host, server_name
from broker.core.policy import host_sans
from broker.errors import (
    ApprovalDeniedError,
    ApprovalExpiredError,
    BadCredentialError,
    MeshError,
    NameNotAllowedError,
    NotFoundError,
)
from broker.ledger.rows import ApprovalRow, MeshRow
from broker.pki.request import CertificateRequest, parse_request
from broker.shell.asking import Question, ask_a_person
from broker.shell.attempts import note_bad_credential
from broker.shell.batch import Batch
from broker.shell.caller import Caller
from broker.shell.credential import Credential, check_credential, spend
from broker.shell.issue import Subject, check_request, enter_first, issued_before, sign
from broker.shell.naming import (
    check_not_taken,
    concern_about,
    is_agreed,
    make_way,
    require_answered,
)
from broker.shell.peers import own_endpoint
from broker.shell.state import BrokerState
from broker.wire.enrollment import Issued, Join, JoinAnswer, PollTicket
from broker.wire.facts import InviteUsed, JoinRefused, MemberJoined
from broker.wire.node import Endpoint

POLL_EVERY_MS = 1000
REFUSAL_EVERY_MS = 10_000
CLAIM_GRACE_S = 86_400
"""How long after its own end an approved request may still be claimed."""


def join(state: BrokerState, batch: Batch, caller: Caller, request: Join) -> JoinAnswer:
    """Enroll a host, or put it before a person; the credential is proven before anything costs."""
    mesh = state.mesh()
    state.issuer()
    state.full_powers(caller.now_ms)
    invited = bool(request.invite_secret)
    state.limiter.check_join(request.source, request.host, caller.now_ms, invited=invited)
    try:
        return _join(state, batch, caller, (mesh, request))
    except MeshError as refusal:
        if isinstance(refusal, BadCredentialError):
            note_bad_credential(state, caller, request)
        _note_refusal(state, batch, caller, (request, refusal))
        raise


def poll_ticket(
    state: BrokerState, batch: Batch, caller: Caller, request: PollTicket
) -> JoinAnswer:
    """Tell a waiting joiner what became of it; an approved one gets its certificate now."""
    mesh = state.mesh()
    row = state.ledger.approval(request.ticket_id)
    secret_hash = hashlib.sha256(request.ticket_secret.encode()).hexdigest()
    if row is None or not hmac.compare_digest(row.ticket_hash, secret_hash):
        raise NotFoundError("no such ticket", hint="join again with a new invite or code")
    if row.state == "denied":
        why = f": {row.reason}" if row.reason else ""
        raise ApprovalDeniedError(f"{row.operator or 'the CA'} denied this request{why}")
    if row.state == "expired" or (row.state == "pending" and row.expires_at <= caller.now):
        raise ApprovalExpiredError("nobody answered in time", hint="join again")
    if row.state == "pending":
        return _answer(state, mesh, row.host, ticket=row)
    state.full_powers(caller.now_ms)
    if row.state == "approved" and row.expires_at + CLAIM_GRACE_S <= caller.now:
        raise ApprovalExpiredError("approved, but never claimed in time", hint="join again")
    return _issue_approved(state, batch, caller, row)


def _join(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[MeshRow, Join]
) -> JoinAnswer:
    mesh, request = what
    host = check_new_host(request.host, mesh.domain)
    check_doors(request.addresses, request.mesh_port, request.enroll_port)
    credential = check_credential(state, request, caller.now)
    csr = parse_request(request.csr)
    if (again := _issued_already(state, mesh, credential, csr)) is not None:
        return again
    credential.require_unused()
    subject = _subject(state, mesh, request, credential)
    check_request(mesh, csr, subject)
    concern = concern_about(state, host)
    if concern is not None and not is_agreed(state, concern, credential.invite):
        question = Question(request, credential, csr, subject, concern.member_id, concern.note)
        ticket = ask_a_person(state, batch, caller, question)
        return _answer(state, mesh, host, ticket=ticket)
    if credential.invite is None and mesh.approval:
        ticket = ask_a_person(state, batch, caller, Question(request, credential, csr, subject))
        return _answer(state, mesh, host, ticket=ticket)
    endpoint = _endpoint(request, mesh.domain)
    issued = sign(state, caller, csr, subject)
    make_way(state, batch, concern, host)
    spend(batch, credential, csr.key_hash, subject.member_id)
    _enroll(batch, subject, endpoint, credential.method)
    enter_first(batch, csr, subject, issued)
    return _answer(state, mesh, host, issued=issued, member_id=subject.member_id)


def _subject(state: BrokerState, mesh: MeshRow, request: Join, credential: Credential) -> Subject:
    """Return what the host gets: the source address is proven by TCP, other names by the invite."""
    invited = credential.invite.sans if credential.invite is not None else ()
    sans = host_sans(mesh.policy, request.host, mesh.domain, [request.source], invited)
    foreign = [san for san in request.sans if san not in {request.host, *sans}]
    if foreign:
        raise NameNotAllowedError(
            "this credential does not allow " + ", ".join(repr(name) for name in foreign[:8]),
            hint=f"invite with --san NAME, or ask for {', '.join(sans)}",
        )
    check_not_taken(state, mesh.domain, request.host, invited)
    return Subject(state.draw(16).hex(), request.host, sans)


def _issued_already(
    state: BrokerState, mesh: MeshRow, credential: Credential, csr: CertificateRequest
) -> JoinAnswer | None:
    """Return the earlier answer when the same key comes back with the same credential."""
    host = credential.host
    member = state.ledger.member_by_host(host)
    if member is not None:
        row = state.ledger.certificate_by_key(member.member_id, csr.key_hash)
        if row is not None and credential.belongs_to(member.member_id, csr.key_hash):
            issued = issued_before(state, row)
            return _answer(state, mesh, host, issued=issued, member_id=member.member_id)
    pending = state.ledger.approval_by_key(host, csr.key_hash)
    if pending is not None and pending.state in {"pending", "approved"}:
        return _answer(state, mesh, host, ticket=pending)
    return None


def _issue_approved(
    state: BrokerState, batch: Batch, caller: Caller, row: ApprovalRow
) -> JoinAnswer:
    mesh = state.mesh()
    if row.state == "issued":
        return _issued_to(state, mesh, row)
    concern = concern_about(state, row.host)
    require_answered(concern, row)
    check_not_taken(state, mesh.domain, row.host, row.sans)
    if state.ledger.totp_step_lost(row.key_hash):
        raise ApprovalDeniedError(
            "the same code was used on the other side of a partition, and earlier there",
            hint="join again with a new code",
        )
    csr = parse_request(row.csr)
    subject = Subject(state.draw(16).hex(), row.host, row.sans)
    issued = sign(state, caller, csr, subject)
    endpoint = Endpoint(
        host=row.host,
        addresses=row.addresses[:ADDRESSES_MAX] or (row.source,),
        enroll_port=row.enroll_port,
        mesh_port=row.mesh_port,
        server_name=server_name(row.host, mesh.domain),
    )
    _spend_invite(state, batch, row, subject)
    make_way(state, batch, concern, row.host)
    _enroll(batch, subject, endpoint, row.method, approval_id=row.approval_id)
    enter_first(batch, csr, subject, issued)
    return _answer(state, mesh, row.host, issued=issued, member_id=subject.member_id)


def _issued_to(state: BrokerState, mesh: MeshRow, row: ApprovalRow) -> JoinAnswer:
    """Return the certificate again that this ticket got, while its owner is a member."""
    member = state.ledger.member(row.member_id)
    if member is None or member.state != "active":
        raise ApprovalDeniedError(
            f"{row.host} was revoked or replaced after it joined", hint="join again"
        )
    known = state.ledger.certificate_by_key(member.member_id, row.key_hash)
    if known is None:
        raise ApprovalDeniedError("this certificate was renewed long ago", hint="join again")
    again = issued_before(state, known)
    return _answer(state, mesh, member.host, issued=again, member_id=member.member_id)


def _spend_invite(state: BrokerState, batch: Batch, row: ApprovalRow, subject: Subject) -> None:
    """Let the invite that opened this ticket belong to its owner: success consumes it, not asking.

    Raises:
        ApprovalDeniedError: Somebody redeemed or revoked it meanwhile.
    """
    if not row.invite_id:
        return
    invite = state.ledger.invite(row.invite_id)
    if invite is None or invite.state != "open":
        raise ApprovalDeniedError(
            "the invite was used or revoked meanwhile", hint="ask for a new one, and join again"
        )
    batch.append(InviteUsed(row.invite_id, subject.member_id, row.key_hash), subject.host)


def _enroll(
    batch: Batch, subject: Subject, endpoint: Endpoint, method: str, approval_id: str = ""
) -> None:
    batch.append(
        MemberJoined(
            member_id=subject.member_id,
            host=subject.host,
            sans=subject.sans,
            role="member",
            endpoint=endpoint,
            method=method,
            approval_id=approval_id,
        ),
        actor=subject.host,
    )


def _endpoint(request: Join, domain: str) -> Endpoint:
    return Endpoint(
        host=request.host,
        addresses=request.addresses[:ADDRESSES_MAX] or (request.source,),
        enroll_port=request.enroll_port,
        mesh_port=request.mesh_port,
        server_name=server_name(request.host, domain),
    )


def _answer(  # noqa: PLR0913 (one answer, two shapes)
    state: BrokerState,
    mesh: MeshRow,
    host: str,
    *,
    issued: Issued | None = None,
    member_id: str = "",
    ticket: ApprovalRow | None = None,
) -> JoinAnswer:
    return JoinAnswer(
        issued=issued,
        member_id=member_id,
        server_name=server_name(host, mesh.domain),
        mesh_id=mesh.mesh_id,
        mesh_name=mesh.name,
        primary=own_endpoint(state, mesh.domain),
        term=state.ledger.term,
        ticket_id=ticket.approval_id if ticket else "",
        words=ticket.words if ticket else (),
        retry_after_ms=POLL_EVERY_MS if ticket else 0,
    )


def _note_refusal(
    state: BrokerState, batch: Batch, caller: Caller, what: tuple[Join, MeshError]
) -> None:
    """Audit a refused join, the same source and reason at most every ten seconds."""
    request, refusal = what
    key = (source_key(request.source), refusal.code)
    if not state.refusals.passes(key, caller.now_ms, REFUSAL_EVERY_MS):
        return
    # Strangers can have many addresses; all of them together fill so many rows and no more.
    if not state.refusal_rows.takes(caller.now_ms):
        return
    claimed = request.host if request.host.isprintable() else repr(request.host)
    batch.append(JoinRefused(claimed[:253], request.source[:64], refusal.code.value), "gateway")
